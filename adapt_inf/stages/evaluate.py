"""Stage evaluate: what the round's model answers on every suite of the lineage, and the figures over time.

Three models answer: this round's, on all suites; the parent's and the base model, on the suites that are new, since
what was known before the round is part of the figures. Scores of earlier rounds come from the parent's matrix and are
never computed again. Answers of one model on one suite are the unit of work: a killed run keeps those that it finished.
A sample that the model cannot read counts as answered with nothing; `fault` in predictions.parquet says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from adapt_inf.config import Evaluate, Params
from adapt_inf.data.intake import SUITES
from adapt_inf.data.pool import POOL
from adapt_inf.data.shards import read_shard
from adapt_inf.errors import SampleError
from adapt_inf.evaluation.figures import Accuracies, figures, rare_skills
from adapt_inf.evaluation.metrics import METRICS
from adapt_inf.files import file_digest, folder_digest, read_json, remove_folder, write_json, write_parquet
from adapt_inf.models.generation import answer, as_base
from adapt_inf.models.vlm import VLM, load_vlm
from adapt_inf.progress import progress
from adapt_inf.project import BASE, Project
from adapt_inf.stages.context import StageContext

PREDICTIONS = "predictions.parquet"
BEFORE = "before.parquet"
MATRIX = "accuracy_matrix.json"
FIGURES = "metrics.json"
PARTS = ".parts"
COLUMNS = ("suite", "sample_id", "skill", "metric", "prediction", "answers", "score", "fault")

Model = AbstractContextManager[VLM]
Matrix = dict[str, Any]


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/evaluate: predictions.parquet, accuracy_matrix.json and metrics.json.

    before.parquet has the columns of predictions.parquet: the parent's model on the suites that are new.
    """
    before: Matrix = read_json(ctx.parent_input("evaluate") / MATRIX)
    return _evaluate(ctx, before, parent=ctx.parent)


def evaluate_base(project: Project, params: Params) -> dict[str, Any]:
    """Write rounds/base/evaluate: the base model on the suites of the base pool, possibly none."""
    ctx = StageContext(project, BASE, params)
    report = _evaluate(ctx, {"skills": [], "rounds": [], "values": {}, "base": {}}, parent=None)
    if not any(project.work(BASE).iterdir()):
        project.work(BASE).rmdir()
    return report


def _evaluate(ctx: StageContext, before: Matrix, parent: str | None) -> dict[str, Any]:
    pool, model = ctx.input("pool"), ctx.input("model")
    suites = {path.stem: path for path in sorted((pool / SUITES).glob("*.parquet"))}
    known = {entry["suite"] for entry in before["skills"]}
    new = {name: path for name, path in suites.items() if name not in known}
    knobs = ctx.params.evaluate
    depends_on = [asdict(knobs), before, read_json(pool / POOL), folder_digest(model)]
    depends_on += [folder_digest(ctx.parent_input("model"))] if parent is not None else []
    depends_on += [[name, file_digest(path)] for name, path in suites.items()]
    with ctx.output("evaluate", depends_on) as out:
        seen = _Answers(out / PARTS, knobs)
        own = seen.of("round", lambda: _loaded(model), suites)
        if parent is None:
            base = inherited = own
        else:
            base = seen.of("base", lambda: _base(model), new)
            folder = ctx.parent_input("model")
            inherited = base if parent == BASE else seen.of("parent", lambda: _loaded(folder), new)
        matrix = _matrix(ctx.round, parent, before, own, inherited, base, read_json(pool / POOL))
        write_parquet(out / PREDICTIONS, own)
        if parent is not None:
            write_parquet(out / BEFORE, inherited)
        write_json(out / MATRIX, matrix)
        metrics = _metrics(ctx.round, parent, matrix)
        write_json(out / FIGURES, metrics)
        remove_folder(out / PARTS)
    return {
        "samples": len(own),
        "unreadable": int((own["fault"] != "").sum()),
        "suites": len(suites),
        "new_suites": len(new),
        "skills": len(matrix["skills"]),
        "average_accuracy": metrics["average_accuracy"],
        "forgetting": metrics["forgetting"],
    }


@contextmanager
def _base(folder: Path) -> Iterator[VLM]:
    with as_base(load_vlm(folder, device="auto")) as vlm:
        yield vlm


def _loaded(folder: Path) -> Model:
    return nullcontext(load_vlm(folder, device="auto"))


class _Answers:
    """Marked answers, a file for each model and suite while the stage runs."""

    def __init__(self, folder: Path, knobs: Evaluate) -> None:
        self._folder = folder
        self._knobs = knobs

    def of(self, who: str, load: Callable[[], Model], suites: dict[str, Path]) -> pd.DataFrame:
        """Marked answers of a model on suites, in their order; the model is loaded only if something is missing."""
        paths = {name: self._folder / who / f"{name}.parquet" for name in suites}
        missing = [name for name, path in paths.items() if not path.is_file()]
        if missing:
            with load() as vlm:
                for name in missing:
                    write_parquet(paths[name], self._mark(vlm, f"evaluate {who} on {name}", name, suites[name]))
        parts = [pd.read_parquet(path) for path in paths.values()]
        return pd.concat(parts, ignore_index=True) if parts else _frame([])

    def _mark(self, vlm: VLM, title: str, suite: str, path: Path) -> pd.DataFrame:
        samples = read_shard(path)
        faults: dict[str, str] = {}

        def refuse(error: SampleError) -> None:
            faults[error.sample_id] = error.problem

        with progress(title, len(samples)) as bar:
            texts = answer(vlm, samples, self._knobs.max_new_tokens, self._knobs.batch_size, bar.update, refuse)
        return _frame(
            [
                {
                    "suite": suite,
                    "sample_id": sample.sample_id,
                    "skill": sample.skill,
                    "metric": sample.metric,
                    "prediction": text,
                    "answers": list(sample.answers),
                    "score": METRICS[sample.metric](text, sample.answers),
                    "fault": faults.get(sample.sample_id, ""),
                }
                for sample, text in zip(samples, texts, strict=True)
            ]
        )


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    texts = {name: "str" for name in COLUMNS if name not in ("answers", "score")}
    return frame.astype({**texts, "score": "float64"})


def _scores(answers: pd.DataFrame) -> dict[str, float]:
    """Mean score of each "<suite>/<skill>", in the order of suites, then of names."""
    means = answers.groupby(answers["suite"] + "/" + answers["skill"])["score"].mean()
    return {str(key): float(value) for key, value in means.sort_index().items()}


def _matrix(
    round_id: str,
    parent: str | None,
    before: Matrix,
    own: pd.DataFrame,
    inherited: pd.DataFrame,
    base: pd.DataFrame,
    pool: dict[str, Any],
) -> Matrix:
    """The parent's matrix with this round's row and, on what is new, the parent's and the base model's scores."""
    earlier = [{**entry, "pool_share": _share(entry, pool)} for entry in before["skills"]]
    known = {_key(entry) for entry in earlier}
    entries = []
    for (suite, skill), rows in own.groupby(["suite", "skill"], sort=True):
        entry = {"skill": str(skill), "suite": str(suite), "round": round_id, "samples": len(rows)}
        if _key(entry) not in known:
            entries.append({**entry, "pool_share": _share(entry, pool)})
    values = {at: dict(scores) for at, scores in before["values"].items()}
    if parent is not None:
        values[parent] |= _scores(inherited)
    values[round_id] = _scores(own)
    return {
        "skills": earlier + entries,
        "rounds": [*before["rounds"], round_id],
        "values": values,
        "base": {**before["base"], **_scores(base)},
    }


def _key(entry: dict[str, Any]) -> str:
    return f"{entry['suite']}/{entry['skill']}"


def _share(entry: dict[str, Any], pool: dict[str, Any]) -> float:
    """Of the pool's live samples, how many train this skill; 0 in an empty pool."""
    return pool["skills"].get(_key(entry), 0) / pool["live"] if pool["live"] else 0.0


def _metrics(round_id: str, parent: str | None, matrix: Matrix) -> dict[str, Any]:
    accuracies = Accuracies(
        rounds=matrix["rounds"],
        brought={_key(entry): entry["round"] for entry in matrix["skills"]},
        values=matrix["values"],
        base=matrix["base"],
    )
    rare = rare_skills({_key(entry): entry["pool_share"] for entry in matrix["skills"]})
    return {
        "round": round_id,
        "parent": parent,
        **figures(accuracies),
        "rare": figures(accuracies.of(rare)) if rare else None,
        "skills": {skill: matrix["values"][round_id][skill] for skill in accuracies.brought},
    }

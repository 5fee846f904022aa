"""The tables and the headline figures of a round's page, as rows of text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adapt_inf.config import load_params
from adapt_inf.project import BASE
from adapt_inf.review.answers import Skill
from adapt_inf.review.round_files import samples_per_second, total
from adapt_inf.review.tables import Review, score_of
from adapt_inf.review.words import count, new_skills, score
from adapt_inf.stages.runner import STAGES

_ROWS = 80  # of a table by skill; beyond that the largest


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; the first `left` columns are words, the others figures."""

    columns: list[str]
    rows: list[list[str]]
    left: int = 1


@dataclass(frozen=True)
class Card:
    """A headline figure; `tone` is `up` or `down` where the note is good or bad news."""

    name: str
    value: str
    note: str = ""
    tone: str = ""


def cards(review: Review) -> list[Card]:
    """The headline figures that the round came as far as."""
    found: list[Card] = []
    files, metrics = review.files, review.files.metrics
    if metrics.get("average_accuracy") is not None:
        before = [entry["metrics"] for entry in review.line if entry["round"] == review.params.parent]
        last = before[0].get("average_accuracy") if before else None
        note = f"over {len(metrics['skills'])} skills"
        if last is not None:  # each is over the skills seen until then
            note += f"; {review.params.parent} had {last:.3f} over {len(before[0]['skills'])}"
        found.append(Card("average accuracy", f"{metrics['average_accuracy']:.3f}", note))
    if metrics.get("forgetting") is not None:
        found.append(Card("forgetting", f"{metrics['forgetting']:.3f}", "mean fall from each skill's best"))
    new = [skill for skill in new_skills(review) if skill in review.known]
    if metrics and new:
        was, now = (float(np.mean([scores[skill] for skill in new])) for scores in (review.known, metrics["skills"]))
        found.append(Card("new skills", f"{now:.3f}", f"from {was:.3f} before", _tone(now - was)))
    old = [skill for skill in review.known if skill in metrics.get("skills", {}) and skill not in new]
    if old:
        change = float(np.mean([metrics["skills"][skill] - review.known[skill] for skill in old]))
        found.append(Card("earlier skills", f"{change:+.3f}", f"against {review.params.parent}", _tone(change)))
    if files.ingest:
        bad = files.counts["rejected"] or 0
        found.append(Card("came in", count(files.ingest["train"]), f"{count(bad)} set aside"))
    if files.selectors:
        of = files.selectors["candidates"]
        found.append(Card("selected", count(files.selectors["selected"]), f"of {count(of)} candidates"))
    if files.pool:
        found.append(Card("in the pool", count(files.pool["live"]), f"{count(files.pool['pruned'])} pruned"))
    return found


def came(review: Review) -> Table | None:
    """What was read and what became of it."""
    report = review.files.ingest
    if not report:
        return None
    kinds = {
        f"set aside: {kind.replace('_', ' ')}": number for kind, number in report.get("rejected_by_kind", {}).items()
    }
    if not kinds:
        kinds = {"set aside": total(report.get("rejected")) or 0}
    rows = {"read": report.get("read"), "to train on": report["train"], "for evaluation": report["eval"], **kinds}
    rows["left out: in the pool already, or twice"] = total(report.get("duplicates"))
    return Table(["", "samples"], [[name, count(number)] for name, number in rows.items() if number is not None])


def knew(review: Review) -> Table | None:
    """Per dataset and skill how surprised the parent's model was, and how it scored."""
    samples = review.samples
    column = score_of("perplexity")
    if column not in samples:
        return None
    groups = samples.groupby(["drop", "skill"], sort=False).agg(
        size=(column, "size"), middle=(column, "median"), new=("new", "any")
    )
    groups = groups.sort_values(["new", "size"], ascending=False, kind="stable").reset_index()[:_ROWS]
    names = (groups["drop"] + "/" + groups["skill"]).tolist()
    rows = [
        [name, "new" if new else "pool", count(size), f"{middle:.2f}", _share(review.known.get(name))]
        for name, size, middle, new in zip(
            names, groups["size"].tolist(), groups["middle"].tolist(), groups["new"].tolist(), strict=True
        )
    ]
    return Table(["dataset/skill", "from", "candidates", "median log perplexity", "score before"], rows, left=2)


def selectors(review: Review) -> Table | None:
    """A row per cluster."""
    if not review.clusters:
        return None
    new, pruned = review.per_cluster("new"), review.per_cluster("pruned")
    rows = []
    for cluster in review.clusters:
        number = cluster["cluster"]
        content, share = review.contents.get(number, ("-", None))
        bits = (cluster.get("entropies") or {}).get(cluster["selector"])
        rows.append(
            [
                str(number), content if share is None else f"{content} {share:.0%}", cluster["selector"],
                count(cluster["size"]), count(new[number]) if number in new else "-", count(cluster["budget"]),
                count(cluster["selected"]), count(pruned[number]) if number in pruned else "-",
                "-" if bits is None else f"{bits:.2f}",
                "-" if cluster.get("margin") is None else f"{cluster['margin']:.2f}",
            ]
        )  # fmt: skip
    heads = ["cluster", "mostly", "selector", "size", "new", "budget", "selected", "pruned", "entropy", "margin"]
    return Table(heads, rows, left=3)


def thrown(review: Review) -> Table | None:
    """Candidates, selected and pruned per dataset and skill."""
    samples = review.samples
    if "selected" not in samples or "pruned" not in samples:
        return None
    groups = samples.groupby(["drop", "skill"], sort=False).agg(
        size=("selected", "size"), chosen=("selected", "sum"), gone=("pruned", "sum")
    )
    groups = groups.sort_values(["gone", "size"], ascending=False, kind="stable").reset_index()[:_ROWS]
    names = (groups["drop"] + "/" + groups["skill"]).tolist()
    numbers = groups[["size", "chosen", "gone"]].to_numpy(dtype=int).tolist()
    rows = [
        [name, count(size), count(chosen), f"{chosen / size:.0%}", count(gone), f"{gone / size:.0%}"]
        for name, (size, chosen, gone) in zip(names, numbers, strict=True)
    ]
    heads = ["dataset/skill", "candidates", "selected", "of them", "pruned", "of them"]
    return Table(heads, rows)


def skills(found: list[Skill]) -> Table | None:
    """Right answers per skill, before and after; the largest gain first."""
    if not found:
        return None
    ranked = sorted(found, key=lambda each: (each.before is None, -((each.right - (each.before or 0)) / each.samples)))
    rows = [
        [
            each.name, count(each.samples), "-" if each.before is None else f"{each.before / each.samples:.2f}",
            f"{each.right / each.samples:.2f}",
            "-" if each.before is None else f"{(each.right - each.before) / each.samples:+.2f}",
            "-" if each.learned is None else count(each.learned),
            "-" if each.forgotten is None else count(each.forgotten),
        ]
        for each in ranked
    ]  # fmt: skip
    if len(rows) > _ROWS:
        left = len(rows) - _ROWS // 2 * 2
        rows = [*rows[: _ROWS // 2], [f"and {left} between", *["-"] * 6], *rows[-(_ROWS // 2) :]]
    return Table(["skill", "samples", "before", "after", "change", "learned", "forgotten"], rows)


def line(review: Review) -> Table:
    """The rounds that led here, this one last."""
    rows = []
    for entry in review.line:
        metrics = entry["metrics"]
        shown = [
            score(metrics[key]) if metrics.get(key) is not None else "-" for key in ("average_accuracy", "forgetting")
        ]
        counts = [count(entry[key]) if entry[key] is not None else "-" for key in ("pool_size", "selected", "pruned")]
        rows.append([entry["round"], entry["parent"], entry["drop"] or "-", entry["strategy"] or "-", *shown, *counts])
    heads = ["round", "on", "dataset", "strategy", "accuracy", "forgetting", "pool", "selected", "pruned"]
    return Table(heads, rows, left=4)


def stages(review: Review) -> Table | None:
    """Seconds, rate and memory of each stage that ran here."""
    rows = []
    for stage in STAGES:
        log = review.files.log(stage)
        if not log:
            continue
        seconds, report = log["seconds"], log.get("report") or {}
        speed = samples_per_second(report, seconds)
        rate = "-" if speed is None else f"{speed:,.0f}"
        memory = log.get("peak_memory_mb")
        rows.append([stage, f"{seconds:,.1f}", rate, "-" if memory is None else f"{memory:,.0f}"])
    return Table(["stage", "seconds", "samples a second", "peak memory, MB"], rows) if rows else None


def versions(review: Review, facts: dict[str, Any]) -> Table:
    """What the round read and what it left, by hash."""
    files, params = review.files, review.params
    rows = [
        ["dataset", f"drops/{params.drop}", files.drop_hash(params.drop)],
        ["pool before", f"rounds/{params.parent}/pool", files.hashes.get(f"rounds/{params.parent}/pool")],
        ["model before", f"rounds/{params.parent}/model", files.hashes.get(f"rounds/{params.parent}/model")],
        ["pool after", f"rounds/{review.round}/pool", files.hashes.get(f"rounds/{review.round}/pool")],
        ["model after", f"rounds/{review.round}/model", files.hashes.get(f"rounds/{review.round}/model")],
        ["commit", f"round/{review.round}", facts.get("commit")],
    ]
    return Table(["", "where", "version"], [[str(cell) for cell in row] for row in rows if row[-1]], left=3)


def changed(review: Review) -> Table | None:
    """Settings in which the round differs from its parent."""
    parent = review.params.parent
    path = review.project.params_of(parent)
    if parent == BASE or not path.is_file():
        return None
    before, after = _flat(asdict(load_params(path))), _flat(asdict(review.params))
    keys = [key for key in after if key not in ("round", "parent", "drop") and after[key] != before.get(key)]
    rows = [[key, str(before.get(key)), str(after[key])] for key in keys]
    return Table(["setting", parent, review.round], rows, left=3) if rows else None


def _tone(change: float) -> str:
    """Of a change, as far as its three digits show one."""
    shown = round(change, 3)
    return "up" if shown > 0 else "down" if shown < 0 else ""


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found

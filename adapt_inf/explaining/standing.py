"""Where a candidate stood in one round: its cluster, its value and rank by each expert, its stratum, and why it was
selected or was not.

All of it is read or counted anew from what the stages left: ranks and strata are a sort of one cluster's values. What
`adapt-inf gc` removed, or never came to this machine, is named and left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapt_inf.config import Params, load_params
from adapt_inf.files import read_json
from adapt_inf.project import Project
from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.coverage import HIGH_TAIL, HIGHEST, LOW_TAIL, stratify
from adapt_inf.selection.strategies import NO_EXPERT, WITHOUT_EXPERTS

ASSIGNMENTS, SCORES, FAULTS = "cluster/assignments.parquet", "score/scores.parquet", "sketch/faults.parquet"
SELECTED, SELECTORS = "select/selected.parquet", "select/selectors.json"


def standing(project: Project, round_id: str, sample_id: str, *, new: bool, over: bool) -> dict[str, Any]:
    """What a round made of one of its candidates.

    Args:
        new: whether it came with the round's own drop.
        over: whether the round is finished: what is not there then is missing, and not just still to come.

    Returns:
        round, drop, strategy and new; cluster (number, size and clusters: samples and clusters that the model can read,
        selected, similarity to the centroid), experts (by name: value, rank, of, quantile, entropy), selector with
        margin, stratum (number, size, selected), selected (True, False, None where select has not run), score, why in
        words; missing: files that would say more. What is not known is None.
    """
    files = _Files(project, round_id)
    params = load_params(project.params_of(round_id))
    found: dict[str, Any] = {"round": round_id, "drop": params.drop, "strategy": params.select.strategy, "new": new}
    report = files.json(SELECTORS)
    chosen = files.row(SELECTED, sample_id)
    fault = files.row(FAULTS, sample_id)
    at = files.row(ASSIGNMENTS, sample_id) or chosen
    cluster = int(at["cluster"]) if at else None
    row = report["clusters"][cluster] if report and cluster is not None else None
    found["unreadable"] = fault["fault"] if fault else None
    found["cluster"] = _cluster(report, row, cluster, (at or {}).get("similarity"))
    found["selector"] = row["selector"] if row else None
    found["margin"] = row["margin"] if row else None
    found["selected"] = bool(chosen) if files.has(SELECTED) else None
    found["score"] = _number(chosen["score"]) if chosen else None
    members = _members(files, cluster) if cluster is not None and not fault else None
    found["experts"] = _experts(members, sample_id, row)
    found["stratum"] = _stratum(files, members, sample_id, row, params) if members is not None and row else None
    if found["stratum"] is None and chosen:
        found["stratum"] = {"number": int(chosen["stratum"]), "size": None, "selected": None}
    if report:
        found["why"] = _why(found, report, params)
    else:
        found["why"] = "its selection is not on this machine" if over else "the round has not come to its selection"
    found["missing"] = files.missing if over or report else []
    return found


class _Files:
    """What a round left; a file that is not there reads as None and is noted."""

    def __init__(self, project: Project, round_id: str) -> None:
        self._folder = project.round(round_id)
        self.missing: list[str] = []

    def path(self, name: str) -> Path | None:
        path = self._folder / name
        if path.is_file():
            return path
        if (shown := f"rounds/{self._folder.name}/{name}") not in self.missing:
            self.missing.append(shown)
        return None

    def has(self, name: str) -> bool:
        return self.path(name) is not None

    def json(self, name: str) -> Any:
        return read_json(path) if (path := self.path(name)) else None

    def table(self, name: str) -> pd.DataFrame | None:
        return pd.read_parquet(path) if (path := self.path(name)) else None

    def row(self, name: str, sample_id: str) -> dict[str, Any] | None:
        if (path := self.path(name)) is None:
            return None
        rows = pd.read_parquet(path, filters=[("sample_id", "==", sample_id)])
        return dict(rows.iloc[0]) if len(rows) else None


def _cluster(
    report: dict[str, Any] | None, row: dict[str, Any] | None, number: int | None, similarity: Any
) -> dict[str, Any] | None:
    if number is None:
        return None
    return {
        "number": number,
        "clusters": len(report["clusters"]) if report else None,
        "size": row["size"] if row else None,
        "selected": row["selected"] if row else None,
        "similarity": None if similarity is None else float(similarity),
    }


@dataclass(frozen=True)
class _Members:
    """The candidates of one cluster that the model can read, in candidate order."""

    sample_ids: pd.Series
    scores: pd.DataFrame


def _members(files: _Files, cluster: int) -> _Members | None:
    assignments, scores, faults = (files.table(name) for name in (ASSIGNMENTS, SCORES, FAULTS))
    if assignments is None or scores is None or faults is None:
        return None
    inside = (assignments["cluster"] == cluster) & ~assignments["sample_id"].isin(faults["sample_id"])
    rows = scores[inside.to_numpy()].reset_index(drop=True)
    return _Members(rows["sample_id"], rows.drop(columns="sample_id"))


def _experts(members: _Members | None, sample_id: str, row: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    entropies: dict[str, float | None] = row["entropies"] if row else {}
    if members is None:
        empty = dict.fromkeys(("value", "rank", "of", "quantile"))
        return {name: {**empty, "entropy": entropy} for name, entropy in entropies.items()}
    at = int(np.flatnonzero(members.sample_ids == sample_id)[0])
    return {
        str(name): rank_of(members.scores[name].to_numpy(dtype=np.float64), at) | {"entropy": entropies.get(str(name))}
        for name in members.scores.columns
    }


def rank_of(values: FloatArray, at: int) -> dict[str, Any]:
    """Where one value stands among others.

    Args:
        values: (n,) of a cluster's samples, nan where one has none.
        at: the position of the one.

    Returns:
        value; rank from 1, the highest (equal values share the better rank); `of` how many have a value; quantile, the
        share of the values below it, equal ones counted half, in 0..1. None each where it has no value.
    """
    known = values[np.isfinite(values)]
    value = float(values[at])
    if not np.isfinite(value):
        return {"value": None, "rank": None, "of": len(known), "quantile": None}
    above, below = int((known > value).sum()), int((known < value).sum())
    equal = len(known) - above - below
    return {"value": value, "rank": above + 1, "of": len(known), "quantile": (below + equal / 2) / len(known)}


def _stratum(
    files: _Files, members: _Members, sample_id: str, row: dict[str, Any], params: Params
) -> dict[str, Any] | None:
    """The sample's stratum in its cluster: its number as in selected.parquet, how many it has and gave."""
    selector = row["selector"]
    if params.select.strategy in WITHOUT_EXPERTS or selector == NO_EXPERT or selector not in members.scores:
        return None
    selected = files.table(SELECTED)
    taken = set(selected["sample_id"]) if selected is not None else set()
    if selected is not None and (selected["stratum"][selected["cluster"] == row["cluster"]] == HIGHEST).any():
        return {"number": HIGHEST, "size": row["size"], "selected": row["selected"]}
    values = members.scores[selector].to_numpy(dtype=np.float64)
    strata = stratify(values, params.select.strata, params.select.tail)
    own = int(strata[members.sample_ids == sample_id][0])
    inside = members.sample_ids[strata == own]
    return {"number": own, "size": len(inside), "selected": int(inside.isin(taken).sum())}


# --- in words ---------------------------------------------------------------------------------------------------------


def _why(found: dict[str, Any], report: dict[str, Any], params: Params) -> str:
    """Why the sample was selected, or was not."""
    select, strategy = params.select, found["strategy"]
    of_all = f"{report['selected']:,} of {report['candidates']:,} candidates"
    if found["unreadable"]:
        return f"not selected: the model cannot read it ({found['unreadable']})"
    if strategy == "full":
        return "selected: strategy full trains on every candidate that the model can read"
    if strategy == "sequential" and not found["new"]:
        return "not selected: strategy sequential trains on the new drop only, and this one came before"
    verdict = "selected" if found["selected"] else "not selected"
    if strategy in ("sequential", "random"):
        drawn = f"strategy {strategy} drew {of_all}" + (" from the new drop" if strategy == "sequential" else "")
        return f"{verdict}: {drawn}, each with the same chance"
    cluster = found["cluster"]
    if cluster is None:
        return f"{verdict}: it is not among the {of_all}; its cluster is not known here any more"
    size, gave = cluster["size"], cluster["selected"]
    share = f"cluster {cluster['number']} had a budget of {gave:,} of its {size:,} samples"
    if gave == size:
        small = select.split != "equal" and size < select.min_cluster
        because = f" (fewer than select.min_cluster, {select.min_cluster})" if small else ""
        return f"{verdict}: cluster {cluster['number']} gave all of its {size:,} samples{because}"
    if gave == 0:
        return f"{verdict}: {share}"
    if strategy == "cluster_random" or found["selector"] == NO_EXPERT:
        return f"{verdict}: {share}, drawn with the same chance each"
    stratum = found["stratum"]
    if stratum is None:
        return f"{verdict}: {share}, chosen by {found['selector']}; the values are not here any more"
    return (
        f"{verdict}: {share}, chosen by {found['selector']}; {_of_stratum(stratum, found, select.strata, select.tail)}"
    )


def _of_stratum(stratum: dict[str, Any], found: dict[str, Any], strata: int, tail: float) -> str:
    number, size, gave = stratum["number"], stratum["size"], stratum["selected"]
    if number == HIGHEST:
        known = found["experts"].get(found["selector"], {})
        if (rank := known.get("rank")) is not None:
            return f"which takes the highest; its value is number {rank:,} from the top"
        if known.get("of") is not None:
            return "which takes the highest; it has no value, and such come last"
        return "which takes the highest; the values are not here any more"
    if number in (LOW_TAIL, HIGH_TAIL):
        end = "lowest" if number == LOW_TAIL else "highest"
        text = f"its value is among the {end} {100 * tail:g}%, which are set aside and used last"
    elif number == strata:
        text = "it has no value, and those without form a stratum of their own"
    else:
        text = f"its value is in stratum {number + 1} of {strata}"
    if size is None:
        return text
    others = "" if found["selected"] or not gave else ", and the draw fell on others"
    return f"{text}, which gave {gave:,} of {size:,}{others}"


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)

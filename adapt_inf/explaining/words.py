"""A sample's life as lines for the terminal."""

from __future__ import annotations

from collections import Counter
from textwrap import wrap
from typing import Any

from adapt_inf.project import BASE
from adapt_inf.tracking.summary import WIDTH, table

_TEXT = 60  # characters of an answer


def life_lines(life: dict[str, Any]) -> list[str]:
    """What `adapt-inf explain` prints.

    Args:
        life: as `life.explain` gives it.
    """
    told = {"training": _training, "evaluation": _evaluation, "rejected": _rejected, "duplicate": _duplicate}
    return [*told[life["kind"]](life), *_missing(life["missing"])]


def _training(life: dict[str, Any]) -> list[str]:
    trained = [each["round"] for each in life["rounds"] if each["selected"]]
    first = f"{life['sample']}: a training sample of skill {life['skill']}; it came {_came(life)}."
    often = f"candidate in {_listed([each['round'] for each in life['rounds']])}" if life["rounds"] else "no round yet"
    second = f"On the line to {_tip(life)}: {often}, trained on in {_listed(trained)}; {_fate(life)}."
    rounds = (line for each in life["rounds"] for line in ("", *_round(each)))
    return [*wrap(first, WIDTH), *wrap(second, WIDTH), *rounds]


def _came(life: dict[str, Any]) -> str:
    return "with the base" if life["round"] == BASE else f"with drop {life['drop']} in {life['round']}"


def _tip(life: dict[str, Any]) -> str:
    return f"{life['tip']}, the head" if life["tip"] == life["head"] else life["tip"]


def _fate(life: dict[str, Any]) -> str:
    pruned = life["pruned"]
    if pruned is None:
        unknown = f"whether it is still in the pool of {life['tip']} is not known here"
        return "it is in the pool" if life["live"] else unknown
    like = f": {pruned['similarity']:.3f} similar to {pruned['of']}, which stayed" if pruned["of"] else ""
    return f"pruned for good by {pruned['round']} from cluster {pruned['cluster']}{like}"


def _round(each: dict[str, Any]) -> list[str]:
    cluster = each["cluster"]
    lines = wrap(f"{each['round']}  {each['why']}", WIDTH, subsequent_indent="      ")
    if cluster is not None and cluster["size"] is not None:
        near = "" if cluster["similarity"] is None else f", {cluster['similarity']:.3f} similar to its centroid"
        lines.append(
            f"      cluster {cluster['number']} of 0..{cluster['clusters'] - 1}: {cluster['size']:,} samples{near}"
        )
    if each["experts"]:
        head = ["expert", "entropy", "value", "rank", "quantile"]
        rows = [_expert(name, values, each["selector"]) for name, values in each["experts"].items()]
        lines += [f"      {line}" for line in table([head, *rows], left=1).splitlines()]
    return lines


def _expert(name: str, values: dict[str, Any], selector: str | None) -> list[str]:
    rank = "-" if values["rank"] is None else f"{values['rank']:,} of {values['of']:,}"
    figures = [_figure(values["entropy"], ".3f"), _figure(values["value"], ".4g"), rank]
    return [f"{name} *" if name == selector else name, *figures, _figure(values["quantile"], ".2f")]


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _evaluation(life: dict[str, Any]) -> list[str]:
    accepted = " or ".join(life["accepted"])
    first = f"{life['sample']}: an evaluation sample of skill {life['skill']}, never trained on; it came {_came(life)}."
    head = ["round", "score", "answer"]
    rows = [[each["round"], f"{each['score']:.2f}", _answer(each)] for each in life["answers"]]
    asked = [f"Right is: {_cut(accepted)} ({life['metric']}).", ""]
    return [*wrap(first, WIDTH), *asked, *(table([head, *rows], left=3).splitlines() if rows else [])]


def _answer(each: dict[str, Any]) -> str:
    return f"- ({each['fault']})" if each["fault"] else _cut(each["prediction"]) or "(nothing)"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else line[: _TEXT - 1] + "…"


def _rejected(life: dict[str, Any]) -> list[str]:
    rejected = life["rejected"]
    return [
        f"{life['sample']}: set aside when {life['round']} took drop {life['drop']} in, and in no pool.",
        f"{rejected['file']}, of the {rejected['split']} split: {rejected['reason']} ({rejected['kind']}).",
        *([f"It repeats {rejected['of']}."] if rejected["of"] else []),
    ]


def _duplicate(life: dict[str, Any]) -> list[str]:
    duplicate = life["duplicate"]
    of = duplicate["of"] or "a sample that is not on this machine"
    return [
        f"{life['sample']}: left out when {life['round']} took drop {life['drop']} in, and in no pool.",
        f"{duplicate['file']}, of the {duplicate['split']} split: an exact duplicate of {of}.",
    ]


def _missing(files: list[str]) -> list[str]:
    if not files:
        return []
    folders = Counter(file.rpartition("/")[0] if file.startswith("rounds/") else file for file in files)
    return ["", *wrap(f"Not on this machine, so not told: {', '.join(folders)}.", WIDTH)]


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"

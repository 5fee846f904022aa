"""report.html: a round on one page that needs nothing else, for whoever decides on it.

It lies in rounds/<round>/report.html, beside pictures/ with its pictures as files. Text and pictures of samples are
untrusted: text is escaped, pictures are decoded and encoded anew, and the page forbids itself scripts and requests.

A part that cannot be made is replaced by the reason: a page for people must never be what a round fails of. Where the
workings of a finished round were freed by gc, the page that was made when it ended stays, but for the gate's verdict.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from adapt_inf.files import is_full, write_text
from adapt_inf.project import Project
from adapt_inf.review import figures
from adapt_inf.review.answers import skill_gallery
from adapt_inf.review.gallery import cluster_gallery
from adapt_inf.review.picture import Picture
from adapt_inf.review.pictures import PICTURES, write_pictures
from adapt_inf.review.svg import COLOUR_RULES, STYLE, inline
from adapt_inf.review.tables import Review
from adapt_inf.review.words import in_short
from adapt_inf.stages.runner import STAGES, WORKINGS, stage_fault
from adapt_inf.versions import commit_of_round

_T = TypeVar("_T")
_VERDICT = re.compile(r"<!--verdict-->.*?<!--/verdict-->", re.DOTALL)

_GATES = {
    "passed": ("good", "Passed its gate"),
    "promoted": ("good", "Promoted by hand"),
    "failed": ("bad", "Failed its gate: the head stays where it was"),
    "declined": ("bad", "Declined: the head stays where it was"),
    "waiting": ("hold", "Passed its gate and waits for approval"),
}
_STATES = {"finished": ("good", "Finished"), "running": ("hold", "Running"), "failed": ("bad", "Failed")}


def report_path(project: Project, round_id: str) -> Path:
    return project.round(round_id) / "report.html"


def make_report(project: Project, record: dict[str, Any]) -> Path:
    """Bring a round's page and pictures up to date; the page's path.

    Args:
        record: of the round as `adapt-inf lineage --json` lists it: round, status, gate, error, pool_hash, commit,
            model_version, each of which but the first two may be missing. The commit is then the one that git has
            tagged: none yet where the round just ends.
    """
    round_id, path = record["round"], report_path(project, record["round"])
    if path.is_file() and _freed(project, record):
        return show_verdict(project, record)
    review = Review(project, round_id)
    faults: dict[str, str] = {}
    if record.get("commit") is None:  # a round's own record cannot hold it: it is part of the commit
        record = record | {"commit": _guarded("commit", faults, lambda: commit_of_round(project, round_id))}
    pictures: dict[str, Picture] = {}
    for name, make in PICTURES.items():
        picture = _guarded(name, faults, partial(make, review))
        if picture is not None:
            pictures[name] = picture
    write_pictures(project, round_id, pictures)
    write_text(path, render(review, record, pictures, faults))
    return path


def show_verdict(project: Project, record: dict[str, Any]) -> Path:
    """Put what the round's gate came to into its page, where there is one, and leave the rest; the page's path."""
    path = report_path(project, record["round"])
    if path.is_file():
        page = path.read_text(encoding="utf-8")
        words = f"<!--verdict-->{_verdict(record)}<!--/verdict-->"
        write_text(path, _VERDICT.sub(lambda _: words, page, count=1))
    return path


def render(review: Review, record: dict[str, Any], pictures: dict[str, Picture], faults: dict[str, str]) -> str:
    """The page as text."""
    params, report = review.params, review.files.ingest
    answers = _guarded("answers", faults, lambda: skill_gallery(review)) or []
    makers: dict[str, Callable[[], Any]] = {
        "cards": lambda: figures.cards(review),
        "said": lambda: in_short(review, record),
        "came": lambda: figures.came(review),
        "knew": lambda: figures.knew(review),
        "selectors": lambda: figures.selectors(review),
        "thrown": lambda: figures.thrown(review),
        "skills": lambda: figures.skills(answers),
        "gallery": lambda: cluster_gallery(review),
        "line": lambda: figures.line(review),
        "stages": lambda: figures.stages(review),
        "versions": lambda: figures.versions(review, record),
        "changed": lambda: figures.changed(review),
    }
    parts = {name: _guarded(name, faults, make) for name, make in makers.items()}
    return _template("report.html.j2").render(
        **parts,
        rules=_safe(COLOUR_RULES),
        chart_rules=_safe(STYLE),
        inline=lambda panel, label: _safe(inline(panel, label)),
        project=review.project.root.resolve().name,
        round=review.round,
        drop=params.drop,
        parent=params.parent,
        strategy=params.select.strategy,
        verdict=_safe(_verdict(record)),
        stopped=_stopped(review, record),
        pictures=pictures,
        faults=faults,
        came_about=_about(report),
        reasons=report.get("reasons", []),
        untested=", ".join(report.get("untested_skills", [])),
        workings=_missing_workings(review),
        answers=[skill for skill in answers if skill.rows],
        clusters=len(review.clusters),
    )


def _guarded(name: str, faults: dict[str, str], make: Callable[[], _T | None]) -> _T | None:
    """What `make` gives; where it fails, None, and the reason in `faults` and on the terminal."""
    try:
        return make()
    except Exception as error:  # whatever a file of the round holds: the round itself is not at fault
        if is_full(error):
            raise
        traceback.print_exc(file=sys.stderr)
        faults[name] = f"{name.replace('_', ' ')} could not be made: {type(error).__name__}: {error}"
        return None


def _freed(project: Project, record: dict[str, Any]) -> bool:
    """Whether the round is over and workings that its page is made of are gone."""
    gone = [name for name in WORKINGS if not project.output(record["round"], name).exists()]
    return record["status"] == "finished" and bool(gone)


def _missing_workings(review: Review) -> str:
    gone = [name for name in WORKINGS if not review.project.output(review.round, name).exists()]
    if not gone or not review.files.selectors:
        return ""
    return f"Not all pictures can be drawn: {', '.join(gone)} are not on this machine (freed by gc, or made elsewhere)."


def _verdict(record: dict[str, Any]) -> str:
    gate, status = record.get("gate"), record["status"]
    tone, headline = _GATES[gate["verdict"]] if gate else _STATES.get(status, ("bad", status.capitalize()))
    reasons = [*gate["reasons"], *_decisive(record["round"], gate)] if gate else []
    version = record.get("model_version")
    return _template("verdict.html.j2").render(tone=tone, headline=headline, reasons=reasons, version=version).strip()


def _decisive(round_id: str, gate: dict[str, Any]) -> list[str]:
    """What a gate looked at, and what is to be done where somebody has to decide."""
    fall, skill = gate["figures"].get("max_forgetting"), gate["figures"].get("max_forgetting_skill")
    said = (
        [f"Largest fall of a skill against the parent: {skill} by {fall:.3f}."] if fall is not None and fall > 0 else []
    )
    if gate["verdict"] == "waiting":
        said.append(f"`adapt-inf promote {round_id}` takes it, the same with --decline refuses it.")
    if gate["verdict"] in ("failed", "declined"):
        said.append(f"`adapt-inf promote {round_id}` takes it all the same.")
    return said


def _stopped(review: Review, record: dict[str, Any]) -> dict[str, str] | None:
    """Where a round that is not finished stands, and why, as far as it is known."""
    if record["status"] == "finished":
        return None
    for stage in STAGES:
        if fault := stage_fault(review.project, review.round, stage):
            return {"stage": stage, "message": fault["message"]}
    ahead = [stage for stage in STAGES if not review.files.log(stage)]
    if not ahead:
        return None
    return {
        "stage": ahead[0],
        "message": record.get("error") or "It was cut off; `adapt-inf round` goes on from there.",
    }


def _about(report: dict[str, Any]) -> str:
    licence = f"Licence: {report['license']}." if report.get("license") else ""
    return " ".join(filter(None, [report.get("description") or "", licence]))


def _template(name: str) -> Any:
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("adapt_inf.review", "templates")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, keep_trailing_newline=True).get_template(name)


def _safe(text: str) -> Any:
    """Markup of ours, which is not escaped again."""
    from markupsafe import Markup

    return Markup(text)

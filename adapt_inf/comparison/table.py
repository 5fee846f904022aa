"""A comparison for the terminal: a row per strategy, what each is above or below others, and skills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapt_inf.comparison.figures import BASELINE, COSTS, UPPER, Outcome, Row
from adapt_inf.comparison.plan import Plan, values_of
from adapt_inf.comparison.statistics import Difference, Mean
from adapt_inf.tracking.summary import table

HEADINGS = {
    "average_accuracy": "average",
    "relative_gain": "rel. gain",
    "forgetting": "forgot",
    "backward_transfer": "backward",
    "forward_transfer": "forward",
    "rare_accuracy": "rare",
    "rare_forgetting": "rare forgot",
    "samples": "samples",
    "seconds": "seconds",
    "cpu_seconds": "cpu s",
}
COLUMNS = [name for name in HEADINGS if name != "rare_forgetting"]  # what has room in a line
DIFFERENCE = ["figure", "difference", "95% interval", "p", "pairs", ""]
NOT_SHOWN = "no difference shown"
_SKILL_COLUMNS = 8  # rows of a comparison that have room side by side


def comparison_text(plan: Plan, found: Sequence[Row]) -> str:
    """The tables, of rows, of differences and of skills, and what a reader must know of them."""
    if not found:
        return "No lineage is done yet."
    heading = [*plan.vary, "strategy", "seeds", *(HEADINGS[name] for name in COLUMNS)]
    lines = [[*_head(row), str(len(row.seeds)), *(_cell(name, row.means[name]) for name in COLUMNS)] for row in found]
    parts = [table([heading, *lines], left=len(plan.vary) + 1)]
    parts.append("\n".join(_notes(plan, found)))
    for heading, lines in difference_tables(plan, found).values():
        parts.append(table([heading, *lines], left=len(plan.vary) + 2))
    if len(found) <= _SKILL_COLUMNS:
        parts.append(table([["skill", *(" ".join(_head(row)) for row in found)], *skill_rows(found)], left=1))
        parts.append("Accuracy on each skill at the end, mean over the seeds.")
        if any(row.against for row in found):
            parts[-1] += f" + and -: the 95% interval of the difference to {BASELINE} leaves out zero."
    return "\n\n".join(parts)


def difference_tables(plan: Plan, found: Sequence[Row]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Differences to `random` under the same variant, and to the same strategy under the first variant.

    Name -> heading and a line for each row and figure: the difference, its interval, p, and words where it holds zero.
    A table without lines is left out.
    """
    first = ", ".join(f"{key}={value}" for key, value in plan.variants[0])
    tables = {
        f"against_{BASELINE}": (BASELINE, [line for row in found for line in _lines(row, row.against)]),
        "against_first": (first, [line for row in found for line in _lines(row, row.against_first)]),
    }
    return {
        name: ([*plan.vary, f"against {other}", *DIFFERENCE], lines) for name, (other, lines) in tables.items() if lines
    }


def _lines(row: Row, against: Mapping[str, Difference | None]) -> list[list[str]]:
    lines = []
    for name, each in against.items():
        if each is None or (name == "relative_gain" and row.strategy == UPPER):
            continue
        digits = _digits(name)
        interval = "-" if each.low is None else f"{each.low:+.{digits}f} to {each.high:+.{digits}f}"
        p = "-" if each.p is None else f"{each.p:.3f}" if each.p >= 0.001 else "<0.001"
        words = "" if each.shown or each.low is None else NOT_SHOWN
        lines.append([*_head(row), HEADINGS[name], f"{each.mean:+.{digits}f}", interval, p, str(each.n), words])
    return lines


def skill_rows(found: Sequence[Row]) -> list[list[str]]:
    """A line for each skill: the mean of each row, marked where it is shown to be above or below `random`."""

    def cell(row: Row, skill: str) -> str:
        if skill not in row.skills:
            return "-  "
        mean, gap = row.skills[skill]
        return f"{mean.mean:.3f} {' ' if gap is None or not gap.shown else '+' if gap.mean > 0 else '-'}"

    skills = dict.fromkeys(skill for row in found for skill in row.skills)
    return [[skill, *(cell(row, skill) for row in found)] for skill in skills]


def _head(row: Row) -> list[str]:
    return [*(value for _, value in row.variant), row.strategy]


def _cell(name: str, found: Mean | None) -> str:
    if found is None:
        return "-"
    digits = _digits(name)
    half = "" if found.half is None else f"{found.half:,.{digits}f}"
    return f"{found.mean:,.{digits}f}" + (f" ±{half.removeprefix('0') if digits else half}" if half else "")


def _digits(name: str) -> int:
    return 0 if name in COSTS else 1 if name == "relative_gain" else 3


def _notes(plan: Plan, found: Sequence[Row]) -> list[str]:
    notes = [
        "Means at the end of the lineages ± half a 95% interval (Student's t over the seeds). Seconds: all stages that",
        "the strategy needs, also where another lineage had computed one; cpu s: of all cores.",
    ]
    if UPPER not in plan.strategies:
        notes.append(f"No relative gain: it is relative to the strategy `{UPPER}`, which is not among --strategies.")
    if BASELINE not in plan.strategies:
        notes.append(f"No differences to the strategy `{BASELINE}`, which is not among --strategies.")
    if len(plan.seeds) == 1:
        notes.append("No intervals: they need two seeds at least.")
    todo = len(plan.lineages()) - sum(len(row.seeds) for row in found)
    if todo:
        notes.append(f"{todo} of {len(plan.lineages())} lineages are not done: the same command goes on.")
    return notes


def as_json(plan: Plan, found: Sequence[Row], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything: the plan, each lineage's rounds, the means and the differences."""
    return {
        "plan": {**vars(plan)},
        "lineages": [
            {
                "variant": values_of(outcome.line.variant),
                "strategy": outcome.line.strategy,
                "seed": outcome.line.seed,
                "rounds": outcome.rounds,
            }
            for outcome in outcomes
        ],
        "rows": [
            {
                "variant": values_of(row.variant),
                "strategy": row.strategy,
                "seeds": row.seeds,
                "means": {name: vars(each) if each else None for name, each in row.means.items()},
                f"against_{BASELINE}": _plain(row.against),
                "against_first": _plain(row.against_first),
                "skills": {skill: mean.mean for skill, (mean, _) in row.skills.items()},
            }
            for row in found
        ],
        "missing": len(plan.lineages()) - len(outcomes),
    }


def _plain(against: Mapping[str, Difference | None]) -> dict[str, Any]:
    return {name: {**vars(each), "shown": each.shown} if each else None for name, each in against.items()}

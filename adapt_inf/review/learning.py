"""Pictures of what the model can do: every skill after every round, and the averages."""

from __future__ import annotations

from typing import Any

from adapt_inf.evaluation.figures import RARE_SHARE
from adapt_inf.review.charts import Line, heat_map, line_chart
from adapt_inf.review.picture import Picture
from adapt_inf.review.round_files import matrix_table
from adapt_inf.review.svg import BLUE, COLOURS, ORANGE, Panel
from adapt_inf.review.tables import MOST_ROUNDS, Review

NOTABLE = 0.05  # a change of a score that is worth a word
_LINES = 8  # in a panel: as many as there are colours
_MOST_SKILLS = 120  # that are drawn; beyond that those that moved most


def accuracy_matrix(review: Review) -> Picture | None:
    """Skills x rounds."""
    if not review.files.matrix.get("skills"):
        return None
    rounds, rows = _table(review)
    names = [f"{row[0]}/{row[1]}" for row in rows]
    shown = _drawn(review, rows)
    framed = [(place, rounds.index(row[2])) for place, row in enumerate(shown) if row[2] in rounds]
    cells = [row[4:] for row in shown]
    panel = heat_map([f"{row[0]}/{row[1]}" for row in shown], rounds, cells, 0.0, 1.0, framed, "skill")
    now = {name: row[-1] for name, row in zip(names, rows, strict=True) if row[-1] is not None}
    best, worst = max(now, key=now.__getitem__), min(now, key=now.__getitem__)
    fell = [name for name, score in now.items() if name in review.known and review.known[name] - score > NOTABLE]
    return Picture(
        f"Every skill after every round{_only(shown, rows)}",
        "A row per skill, a column per round; a cell is the mean score of its answers, the framed one that of the "
        "round that brought the skill. A row that pales to the right of its frame is a skill that is being forgotten.",
        f"{len(now)} skills after {review.round}: best {best} at {now[best]:.2f}, worst {worst} at {now[worst]:.2f}. "
        + _fell(fell, review.params.parent),
        (panel,),
    )


def _fell(fell: list[str], parent: str) -> str:
    if not fell:
        return f"None fell by more than {NOTABLE:.2f} against {parent}."
    named = ", ".join(fell[:4]) + (f" and {len(fell) - 4} more" if len(fell) > 4 else "")
    return f"More than {NOTABLE:.2f} below {parent}: {named}."


def skill_curves(review: Review) -> Picture | None:
    """A panel per suite, and one or more for the rare skills."""
    if not review.files.matrix.get("skills"):
        return None
    rounds, rows = _table(review)
    entries = review.files.matrix["skills"]
    rare_ones = {(e["suite"], e["skill"]) for e in entries if e.get("pool_share", 1.0) < RARE_SHARE}
    shown = _drawn(review, rows)
    rare = [row for row in shown if (row[0], row[1]) in rare_ones]
    panels: dict[str, list[list[Any]]] = {}
    for row in shown:
        if row not in rare:
            panels.setdefault(row[0], []).append(row)
    drawn = [panel for suite, members in panels.items() for panel in _panels(suite, members, rounds)]
    if rare:
        plain = [row[1] for row in rare]
        drawn += _panels(
            "rare skills",
            [[row[0], row[1] if plain.count(row[1]) == 1 else f"{row[0]}/{row[1]}", *row[2:]] for row in rare],
            rounds,
        )
    lost = [
        (max(before) - row[-1], f"{row[0]}/{row[1]}")
        for row in rows
        if row[-1] is not None and (before := [score for score in row[4:-1] if score is not None])
    ]
    most, name = max(lost, default=(0.0, ""))
    shows = f"Farthest below its best: {name}, by {most:.2f}. " if most > 0 else "No skill is below its best. "
    few = f"Rare (under {RARE_SHARE:.0%} of the pool), apart at the end: {len(rare_ones)} of {len(rows)} skills."
    return Picture(
        f"How each skill rose and fell{_only(shown, rows)}",
        "A panel per dataset, a line per skill: its score after each round. Dotted up to the round that brought it; "
        "a line that sinks afterwards is forgetting.",
        shows + (few if rare else f"No skill has under {RARE_SHARE:.0%} of the pool."),
        tuple(drawn),
    )


def _drawn(review: Review, rows: list[list[Any]]) -> list[list[Any]]:
    """The rows of the skills to draw, in their order: all, or those that moved most against the parent."""
    if len(rows) <= _MOST_SKILLS:
        return rows

    def moved(place: int) -> float:
        suite, skill, after = rows[place][0], rows[place][1], rows[place][-1]
        before = review.known.get(f"{suite}/{skill}")
        return abs(after - before) if after is not None and before is not None else 0.0

    most = sorted(range(len(rows)), key=lambda place: -moved(place))[:_MOST_SKILLS]
    return [rows[place] for place in sorted(most)]


def _only(shown: list[list[Any]], rows: list[list[Any]]) -> str:
    return "" if len(shown) == len(rows) else f", the {len(shown)} of {len(rows)} that moved most"


def _panels(suite: str, members: list[list[Any]], rounds: list[str]) -> list[Panel]:
    """One panel for each so many skills as there are colours."""
    parts = [members[first : first + _LINES] for first in range(0, len(members), _LINES)]
    drawn = []
    for number, part in enumerate(parts, start=1):
        lines = [
            Line(row[1], row[4:], COLOURS[place], rounds.index(row[2]) if row[2] in rounds else 0)
            for place, row in enumerate(part)
        ]
        drawn.append(line_chart(suite if len(parts) == 1 else f"{suite} ({number} of {len(parts)})", rounds, lines))
    return drawn


def averages(review: Review) -> Picture | None:
    """Average accuracy and forgetting over the rounds, those of the rare skills beside them."""
    line = [entry for entry in review.line if entry["metrics"]]
    if not line:
        return None
    rounds = [entry["round"] for entry in line]

    def row(figure: str, rare: bool = False) -> list[float | None]:
        return [((entry["metrics"].get("rare") or {}) if rare else entry["metrics"]).get(figure) for entry in line]

    panels = []
    for title, figure, fixed in (("average accuracy", "average_accuracy", True), ("forgetting", "forgetting", False)):
        lines = [Line("all skills", row(figure), BLUE)]
        if any(value is not None for value in row(figure, rare=True)):
            lines.append(Line("rare skills", row(figure, rare=True), ORANGE, dash="5 3"))
        panels.append(line_chart(title, rounds, lines, fixed=fixed))
    now, before = line[-1]["metrics"], line[-2]["metrics"] if len(line) > 1 else {}
    return Picture(
        "Accuracy and forgetting over the rounds",
        "Average accuracy is over all skills seen so far, so it may sink when a hard skill arrives and nothing is "
        "lost; forgetting is how far the earlier skills have fallen from their best, on average. Dashed: rare skills.",
        " ".join(
            _moved(name, now.get(key), before.get(key))
            for name, key in (("Average accuracy", "average_accuracy"), ("Forgetting", "forgetting"))
        ),
        tuple(panels),
    )


def _moved(name: str, now: float | None, before: float | None) -> str:
    if now is None:
        return f"{name} has nothing to average yet."
    return f"{name} {now:.3f}." if before is None else f"{name} {now:.3f} ({now - before:+.3f} on the round before)."


def _table(review: Review) -> tuple[list[str], list[list[Any]]]:
    """The latest rounds of the matrix, and its rows with as many scores."""
    columns, rows = matrix_table(review.files.matrix)
    late = max(0, len(columns) - 4 - MOST_ROUNDS)
    return columns[4 + late :], [[*row[:4], *row[4 + late :]] for row in rows]

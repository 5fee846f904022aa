"""Pictures of a comparison: what each strategy came to, and the way there, with 95% intervals over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adapt_inf.comparison.figures import FIGURES, Outcome, Row
from adapt_inf.comparison.plan import Variant
from adapt_inf.comparison.statistics import Mean, mean_of
from adapt_inf.files import write_text
from adapt_inf.review import svg
from adapt_inf.review.charts import level, nice_ticks, number
from adapt_inf.review.svg import Panel

OVER_ROUNDS = {"average_accuracy": "Average accuracy after each round", "forgetting": "Forgetting after each round"}
_BAND = 0.16  # opacity


def write_pictures(folder: Path, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> list[Path]:
    """Write figures.svg, average_accuracy.svg and forgetting.svg to `folder`; at least one lineage must be done."""
    colours = colours_of(rows)
    known = [name for name in FIGURES if any(row.means[name] for row in rows)]
    bars = [bar_panel(name, [(_label(row), row.means[name], colours[row.strategy]) for row in rows]) for name in known]
    drawn = {"figures": ("At the end, with 95% intervals over the seeds", bars)}
    for name, title in OVER_ROUNDS.items():
        variants = list(dict.fromkeys(row.variant for row in rows))
        drawn[name] = (
            f"{title}, with 95% intervals over the seeds",
            [curve_panel(_words(variant), *curves(outcomes, variant, name), colours) for variant in variants],
        )
    paths = []
    for name, (title, panels) in drawn.items():
        paths.append(folder / f"{name}.svg")
        write_text(paths[-1], svg.document(title, panels))
    return paths


def colours_of(rows: Sequence[Row]) -> dict[str, str]:
    """A colour for each strategy, the same in every picture."""
    strategies = dict.fromkeys(row.strategy for row in rows)
    return {name: svg.COLOURS[place % len(svg.COLOURS)] for place, name in enumerate(strategies)}


def curves(outcomes: Sequence[Outcome], variant: Variant, name: str) -> tuple[list[str], dict[str, list[Mean | None]]]:
    """The rounds of a variant's lineages, and per strategy the mean of a figure after each of them over the seeds."""
    of_variant = [outcome for outcome in outcomes if outcome.line.variant == variant]
    rounds = [entry["round"] for entry in of_variant[0].rounds]
    found: dict[str, list[Mean | None]] = {}
    for strategy in dict.fromkeys(outcome.line.strategy for outcome in of_variant):
        members = [outcome.rounds for outcome in of_variant if outcome.line.strategy == strategy]
        found[strategy] = []
        for at in range(len(rounds)):
            values = [entries[at][name] for entries in members]
            found[strategy].append(None if None in values else mean_of(np.array(values)))
    return rounds, found


def bar_panel(name: str, bars: Sequence[tuple[str, Mean | None, str]]) -> Panel:
    """A figure's mean for each row as a bar from zero, its interval as a line across the end.

    Args:
        bars: (name, mean, colour).
    """
    names = [svg.cut(label, 190) for label, _, _ in bars]
    left, inner, step, top = 12 + max(map(svg.text_width, names)), 190.0, 22.0, 30.0
    ends = [
        edge for _, mean, _ in bars if mean for edge in (mean.mean - (mean.half or 0), mean.mean + (mean.half or 0))
    ]
    ticks = nice_ticks(min([0.0, *ends]), max([0.0, *ends]), 4)
    low, scale, foot = min(ticks), inner / (max(ticks) - min(ticks)), top + step * len(bars)
    parts = [svg.text(2, 16, name.replace("_", " "), size=13, bold=True)]
    for tick in ticks:
        x = left + (tick - low) * scale
        parts += [
            svg.line(x, top, x, foot),
            svg.text(x, foot + 14, number(tick), anchor="middle", size=10, kind="m"),
        ]
    for row, (label, mean, colour) in enumerate(bars):
        y = top + row * step
        parts.append(svg.text(left - 8, y + 15, names[row], anchor="end"))
        if mean is None:
            parts.append(svg.text(left + 4, y + 15, "–", size=11, kind="m"))
            continue
        zero, end = left - low * scale, left + (mean.mean - low) * scale
        about = f"{label}: {mean.mean:.4g}" + ("" if mean.half is None else f" ± {mean.half:.2g}")
        parts.append(svg.rect(min(zero, end), y + 4, abs(end - zero), step - 8, colour, about))
        if mean.half is not None:
            reach = mean.half * scale
            parts.append(svg.path([(end - reach, y + step / 2), (end + reach, y + step / 2)], width=1.6))
            parts += [svg.path([(end + side, y + 7), (end + side, y + step - 7)]) for side in (-reach, reach)]
    return Panel(left + inner + 16, foot + 22, "".join(parts))


def curve_panel(
    title: str, rounds: Sequence[str], lines: dict[str, list[Mean | None]], colours: dict[str, str]
) -> Panel:
    """A figure over the rounds, a line for each strategy in the band of its interval."""
    width, height, left, top, right, foot = 420.0, 262.0, 40.0, 30.0, 110.0, 26.0
    means = [mean for line in lines.values() for mean in line if mean]
    edges = [mean.mean + side * (mean.half or 0) for mean in means for side in (-1, 1)]
    ticks = nice_ticks(min([0.0, *edges]), max([0.0, *edges]))
    inner, deep = width - left - right, height - top - foot

    def at(place: int, value: float) -> tuple[float, float]:
        share = (value - min(ticks)) / (max(ticks) - min(ticks))
        return left + inner * (place + 0.5) / len(rounds), top + deep * (1 - share)

    parts = [svg.text(2, 16, svg.cut(title, width - 10, 13), size=13, bold=True)]
    for tick in ticks:
        y = at(0, tick)[1]
        parts += level(tick, y, left, left + inner)
    for place in range(0, len(rounds), len(rounds) // 8 + 1):
        parts.append(svg.text(at(place, 0)[0], height - 8, rounds[place], anchor="middle", size=10, kind="m"))
    ends = []
    for strategy, line in lines.items():
        known = [(place, mean) for place, mean in enumerate(line) if mean]
        colour = colours[strategy]
        upper = [at(place, mean.mean + (mean.half or 0)) for place, mean in known]
        lower = [at(place, mean.mean - (mean.half or 0)) for place, mean in known]
        outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
        parts.append(f'<polygon points="{outline}" fill="{colour}" fill-opacity="{_BAND}"/>')
        points = [at(place, mean.mean) for place, mean in known]
        parts += [svg.path(points, colour, 2), svg.dots(points, colour, 5)]
        if points:
            ends.append((points[-1][1], strategy))
    ends.sort()
    heights = svg.spread([y for y, _ in ends], 13, top, top + deep)
    for y, (_, strategy) in zip(heights, ends, strict=True):
        parts.append(
            svg.text(left + inner + 6, y + 4, svg.cut(strategy, right - 8, 11), size=11, fill=colours[strategy])
        )
    return Panel(width, height, "".join(parts))


def _label(row: Row) -> str:
    return " ".join(filter(None, [row.strategy, _words(row.variant)]))


def _words(variant: Variant) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in variant)

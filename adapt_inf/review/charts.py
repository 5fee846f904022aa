"""Charts of numbers: heat map, lines over rounds, bars, columns, histogram, map of points. Each gives one panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapt_inf.review import svg
from adapt_inf.review.svg import Panel

_CELL = (50.0, 24.0)
_LABELS = 200.0  # widest column of names
_DARK_CELL = 0.66  # of the way to the deepest colour, from where on white stands out better than ink
_PALE, _DEEP = (238, 242, 246), (18, 79, 140)  # ends of a heat map's colours


@dataclass(frozen=True)
class Line:
    """A named line over the rounds: a value or None each; up to `since` it is dotted."""

    name: str
    values: Sequence[float | None]
    colour: str
    since: int = 0
    width: float = 1.8
    dash: str = ""


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: its name, parts (value, colour) laid end to end, a mark, and a word behind it."""

    name: str
    parts: Sequence[tuple[float, str]]
    mark: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Marks:
    """Points of a map that share a colour; `label`, if any, stands at their middle."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    label: str = ""
    opacity: float = field(default=0.75)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    low: float,
    high: float,
    framed: Sequence[tuple[int, int]] = (),
    corner: str = "",
) -> Panel:
    """Rows x columns as coloured cells with their figures; an empty cell is a dash.

    Args:
        values: one row of cells for each of `rows`.
        low, high: the values of the palest and the deepest colour.
        framed: (row, column) of cells to mark.
        corner: what the rows are.
    """
    heads = [column.replace("_", " ").split(" ", 1) for column in columns]
    cell_width = max(_CELL[0], 4 + max((svg.text_width(word, 10) for head in heads for word in head), default=0))
    names = [svg.cut(row, _LABELS) for row in rows]
    left = 12 + max((svg.text_width(name) for name in [*names, corner]), default=0)
    top = 18.0 + 13 * max((len(head) for head in heads), default=1)
    parts = [svg.text(left - 8, top - 8, corner, anchor="end", size=11, kind="m")]
    for column, head in enumerate(heads):
        for place, word in enumerate(reversed(head)):
            middle = left + (column + 0.5) * cell_width
            parts.append(svg.text(middle, top - 8 - 13 * place, word, anchor="middle", size=10, kind="m"))
    for row, (name, full, cells) in enumerate(zip(names, rows, values, strict=True)):
        y = top + row * _CELL[1]
        parts.append(svg.text(left - 8, y + 16, name, anchor="end"))
        for column, value in enumerate(cells):
            x = left + column * cell_width
            if value is None or not math.isfinite(value):
                parts.append(svg.text(x + cell_width / 2, y + 16, "–", anchor="middle", size=11, kind="m"))
                continue
            share = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5
            about = f"{full}, {columns[column]}: {value:.3f}"
            parts.append(svg.rect(x + 1, y + 1, cell_width - 2, _CELL[1] - 2, _shade(share), about))
            ink = "#ffffff" if share > _DARK_CELL else "#1d2733"
            parts.append(svg.text(x + cell_width / 2, y + 16, f"{value:.2f}", anchor="middle", size=11, fill=ink))
    for row, column in framed:
        x, y = left + column * cell_width + 1.5, top + row * _CELL[1] + 1.5
        parts.append(svg.frame(x, y, cell_width - 3, _CELL[1] - 3))
    width = left + cell_width * len(columns) + 6
    return Panel(width, top + _CELL[1] * len(rows) + 6, "".join(parts))


def line_chart(
    title: str,
    rounds: Sequence[str],
    lines: Sequence[Line],
    *,
    unit: str = "",
    fixed: bool = True,
    mark: int | None = None,
) -> Panel:
    """Lines over the rounds, each named at its end.

    Args:
        fixed: the axis runs from 0 to 1; else from 0, or what lies below, to the largest value.
        mark: the place of a round to mark.
    """
    width, height, left, top, right, foot = 348.0, 232.0, 36.0, 30.0, 104.0, 26.0
    known = [value for each in lines for value in each.values if value is not None]
    ticks = [0, 0.25, 0.5, 0.75, 1.0] if fixed else nice_ticks(min([0.0, *known]), max([0.0, *known]))
    low, high = min(ticks), max(ticks)
    inner, deep = width - left - right, height - top - foot

    def at(place: int, value: float) -> tuple[float, float]:
        return left + inner * (place + 0.5) / len(rounds), top + deep * (1 - (value - low) / ((high - low) or 1))

    parts = [svg.text(2, 16, svg.cut(title, width - 10, 13), size=13, bold=True)]
    for tick in ticks:
        y = at(0, tick)[1]
        parts += level(tick, y, left, left + inner)
    parts.append(svg.text(2, top - 4, unit, size=10, kind="m"))
    if mark is not None:
        parts.append(svg.line(at(mark, low)[0], top, at(mark, low)[0], top + deep, svg.ORANGE, 2, "4 3"))
    every = math.ceil(len(rounds) / 6)
    for place in range(0, len(rounds), every):
        parts.append(svg.text(at(place, 0)[0], height - 8, rounds[place], anchor="middle", size=10, kind="m"))
    ends: list[tuple[float, str, str]] = []
    for each in lines:
        points = [None if value is None else at(place, value) for place, value in enumerate(each.values)]
        parts.append(svg.path(points[: each.since + 1], each.colour, 1.2, "2 3") if each.since else "")
        own = points[each.since :]
        parts.append(svg.path(own, each.colour, each.width, each.dash))
        if len(rounds) <= 20:
            parts.append(svg.dots([point for point in own if point], each.colour, 5))
        if last := [point for point in points if point]:
            ends.append((last[-1][1], each.name, each.colour))
    ends.sort()
    for y, (_, name, colour) in zip(svg.spread([end[0] for end in ends], 13, top, top + deep), ends, strict=True):
        parts.append(svg.text(left + inner + 6, y + 4, svg.cut(name, right - 8, 11), size=11, fill=colour))
    return Panel(width, height, "".join(parts))


def bar_chart(
    bars: Sequence[Bar], legend: Sequence[tuple[str, str]], *, mark: str = "", unit: str = "samples", most: float = 0.0
) -> Panel:
    """Bars lying one under the other.

    Args:
        legend: (name, colour) of the parts.
        mark: what the mark of a bar is.
        most: where the axis ends; at the longest bar when left out.
    """
    names = [svg.cut(bar.name, 160) for bar in bars]
    left = 12 + max((svg.text_width(name) for name in names), default=0)
    notes = max((svg.text_width(bar.note, 11) for bar in bars), default=0)
    inner, step = 200.0, 20.0
    width = left + inner + notes + 22
    most = most or max([sum(value for value, _ in bar.parts) for bar in bars] + [bar.mark or 0 for bar in bars])
    ticks = nice_ticks(0, most, 4)
    scale = inner / (max(ticks) or 1)
    swatches, used = svg.legend(4, 4, legend, width - 8)
    parts = [swatches]
    if mark:
        parts += [
            svg.line(8, used + 4, 8, used + 16, svg.ORANGE, 2.5),
            svg.text(18, used + 14, mark, size=11, kind="m"),
        ]
        used += 18
    top = used + 12
    for tick in ticks:
        x = left + tick * scale
        parts += [
            svg.line(x, top, x, top + step * len(bars)),
            svg.text(x, top + step * len(bars) + 14, number(tick), anchor="middle", size=10, kind="m"),
        ]
    parts.append(svg.text(left + inner, top + step * len(bars) + 28, unit, anchor="end", size=10, kind="m"))
    for row, (bar, name) in enumerate(zip(bars, names, strict=True)):
        y, x = top + row * step, left
        parts.append(svg.text(left - 8, y + 14, name, anchor="end"))
        for value, colour in bar.parts:
            parts.append(svg.rect(x, y + 3, value * scale, step - 6, colour, f"{bar.name}: {value:,.4g}", kind="w"))
            x += value * scale
        if bar.mark is not None:
            at = left + bar.mark * scale
            parts.append(svg.line(at, y + 1, at, y + step - 1, svg.ORANGE, 2.5))
            x = max(x, at)
        parts.append(svg.text(x + 6, y + 14, bar.note, size=11, kind="m"))
    return Panel(width, top + step * len(bars) + 34, "".join(parts))


def column_chart(
    title: str, names: Sequence[str], series: Sequence[tuple[str, str, Sequence[float | None]]], unit: str = ""
) -> Panel:
    """Columns side by side over the rounds.

    Args:
        series: (name, colour, a value or None per round).
    """
    width, height, left, foot = 348.0, 232.0, 48.0, 26.0
    swatches, used = svg.legend(left, 24, [(name, colour) for name, colour, _ in series], width - left)
    top = 24 + (used if len(series) > 1 else 0) + 14
    inner, deep = width - left - 6, height - top - foot
    ticks = nice_ticks(0, max([0.0, *(value for _, _, row in series for value in row if value is not None)]), 4)
    scale = deep / (max(ticks) or 1)
    parts = [svg.text(2, 16, title, size=13, bold=True), swatches if len(series) > 1 else ""]
    parts.append(svg.text(2, top - 4, unit, size=10, kind="m"))
    for tick in ticks:
        y = top + deep - tick * scale
        parts += level(tick, y, left, left + inner)
    slot = inner / len(names)
    thick = min(36.0, slot * 0.78 / len(series))
    every = math.ceil(len(names) / 7)
    for place, name in enumerate(names):
        middle = left + (place + 0.5) * slot
        if place % every == 0:
            parts.append(svg.text(middle, height - 8, name, anchor="middle", size=10, kind="m"))
        for number_of, (what, colour, values) in enumerate(series):
            value = values[place]
            if value is None:
                continue
            x = middle + (number_of - len(series) / 2) * thick
            tall = value * scale
            parts.append(svg.rect(x, top + deep - tall, thick - 1, tall, colour, f"{name}, {what}: {value:,.4g}"))
            if len(names) * len(series) <= 12:
                words = number(value)
                parts.append(svg.text(x + thick / 2, top + deep - tall - 3, words, anchor="middle", size=10, kind="m"))
    return Panel(width, height, "".join(parts))


def strata_chart(title: str, note: str, all_of: Sequence[int], chosen: Sequence[int], tails: int) -> Panel:
    """A histogram of samples over the strata, and of those chosen in front; the first and last `tails` bins are faint.

    Args:
        all_of: samples in the low tail, in each stratum by rising score, in the high tail.
        chosen: of them, those selected.
    """
    width, height, top, foot = 226.0, 132.0, 38.0, 16.0
    inner, deep = width - 8, height - top - foot
    slot, scale = inner / len(all_of), deep / max(1, *all_of)
    parts = [
        svg.text(4, 14, svg.cut(title, inner, 12), size=12, bold=True),
        svg.text(4, 29, svg.cut(note, inner, 11), size=11, kind="m"),
    ]
    for place, (here, taken) in enumerate(zip(all_of, chosen, strict=True)):
        x, tail = 4 + place * slot, place < tails or place >= len(all_of) - tails
        wide = max(slot - 0.6, 0.8)
        parts.append(svg.rect(x, top + deep - here * scale, wide, here * scale, kind="w"))
        parts.append(svg.rect(x, top + deep - taken * scale, wide, taken * scale, svg.PINK if tail else svg.GREEN))
    parts.append(svg.line(4, top + deep, 4 + inner, top + deep))
    parts += [
        svg.text(4, height - 3, "low", size=10, kind="m"),
        svg.text(4 + inner, height - 3, "high", anchor="end", size=10, kind="m"),
    ]
    return Panel(width, height, "".join(parts))


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], unit: str) -> Panel:
    """Columns that touch: how many values lie between two neighbouring edges."""
    width, height, left, top, foot = 348.0, 190.0, 44.0, 30.0, 36.0
    inner, deep = width - left - 12, height - top - foot
    ticks = nice_ticks(0, max(counts), 3)
    scale, slot = deep / (max(ticks) or 1), inner / len(counts)
    parts = [svg.text(2, 16, svg.cut(title, width - 8, 13), size=13, bold=True)]
    for tick in ticks:
        y = top + deep - tick * scale
        parts += level(tick, y, left, left + inner)
    for place, count in enumerate(counts):
        about = f"{edges[place]:.3g} to {edges[place + 1]:.3g}: {count:,}"
        parts.append(
            svg.rect(left + place * slot, top + deep - count * scale, slot - 1, count * scale, svg.ORANGE, about)
        )
    for place in range(0, len(edges), max(1, len(counts) // 5)):
        parts.append(
            svg.text(left + place * slot, height - 20, f"{edges[place]:.2g}", anchor="middle", size=10, kind="m")
        )
    parts.append(svg.text(left + inner, height - 5, unit, anchor="end", size=10, kind="m"))
    return Panel(width, height, "".join(parts))


def point_map(title: str, groups: Sequence[Marks], *, named: bool) -> Panel:
    """Points in the unit square by group, drawn in their order; a legend under the title where `named`."""
    width, side = 348.0, 332.0
    swatches, used = svg.legend(4, 26, [(group.name, group.colour) for group in groups if group.points], width - 8)
    top = 30 + (used if named else 0)
    parts = [svg.text(2, 16, title, size=13, bold=True), swatches if named else ""]

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return 10 + point[0] * (side - 8), top + 6 + (1 - point[1]) * (side - 12)

    for group in groups:
        parts.append(svg.dots([at(point) for point in group.points], group.colour, 4.2, group.opacity))
    for group in groups:
        if group.label and group.points:
            across, up = (sorted(values)[len(values) // 2] for values in zip(*group.points, strict=True))
            x, y = at((across, up))
            parts.append(svg.text(x, y + 4, group.label, anchor="middle", size=11, bold=True, kind="h"))
    return Panel(width, top + side, "".join(parts))


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at most `low` to at least `high`."""
    if not high > low:
        return [low, low + 1]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * place, 12) for place in range(first, last + 1)]


def level(tick: float, y: float, left: float, right: float) -> list[str]:
    """A rule across a chart at the height `y`, and what it stands for at its left."""
    return [svg.line(left, y, right, y), svg.text(left - 6, y + 4, number(tick), anchor="end", size=10, kind="m")]


def number(value: float) -> str:
    """A figure as an axis or a column shows it: 0.25, 80, 1,250, 24k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:,.3g}k" if abs(value) < 1_000_000 else f"{value / 1_000_000:,.3g}M"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def _shade(share: float) -> str:
    red, green, blue = (round(pale + share * (deep - pale)) for pale, deep in zip(_PALE, _DEEP, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"

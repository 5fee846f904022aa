"""Pictures of a lineage: data in, matplotlib Figure out, and one function that writes those of a round.

Figures are made without pyplot, so nothing global is touched and the same data give the same bytes. Colours are Okabe
and Ito's, which the colour-blind tell apart; every line carries its name. All six take about two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from adapt_inf.files import write_whole
from adapt_inf.project import Project
from adapt_inf.tracking.reports import RoundFiles, ancestry, matrix_table

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#7F7F7F")
INK, FAINT = "#222222", "#C8C8C8"

_DPI = 110
_LABEL_GAP = 0.07  # of the y axis between two labels, which would else cover each other
_MOST_FIGURES = 900  # cells of a heat map that still get their number
_MOST_BARS = 60  # clusters shown by name; beyond that the largest ones
_MOST_ROUNDS = 40  # rounds that have a column of their own; beyond that the latest ones


@dataclass(frozen=True)
class Curve:
    """One skill over the rounds: a score or None per round, and the place of the round that brought it."""

    suite: str
    skill: str
    scores: list[float | None]
    since: int


def skill_curves(rounds: Sequence[str], curves: Sequence[Curve], average: list[float | None]) -> Figure:
    """A panel per suite: its skills over the rounds in colour, named at their ends, the average of all in bold.

    The way from the model before a skill came to the round that brought it is dotted.

    Args:
        rounds: names of the rounds, in order.
        average: average accuracy per round.
    """
    suites: dict[str, list[Curve]] = {}
    for curve in curves:
        suites.setdefault(curve.suite, []).append(curve)
    columns = min(3, max(1, len(suites)))
    lines = max(1, math.ceil(len(suites) / columns))
    figure = Figure(figsize=(4.4 * columns, 0.5 + 2.7 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, (suite, members) in zip(panels, suites.items(), strict=False):
        _curves_of_suite(panel, len(rounds), suite, members, average)
        _round_ticks(panel, rounds)
        panel.xaxis.set_tick_params(labelbottom=True)
    for panel in panels[len(suites) :]:
        panel.set_axis_off()
    figure.suptitle("Score of each skill after each round (bold: average of all skills so far)", color=INK)
    return figure


def accuracy_matrix(
    rounds: Sequence[str], skills: Sequence[str], values: Sequence[Sequence[float | None]], since: Sequence[str]
) -> Figure:
    """Skills x rounds as a heat map with figures; a frame marks the round that brought a skill.

    Args:
        values: (skills, rounds) scores, None where a skill was not measured.
        since: per skill the round that brought it.
    """
    figure = Figure(figsize=(3.2 + 0.62 * max(3, len(rounds)), 1.3 + 0.3 * max(3, len(skills))), layout="constrained")
    axes = figure.subplots()
    _heat_map(axes, figure, values, "score", 0.0, 1.0)
    _round_ticks(axes, rounds)
    axes.set_yticks(range(len(skills)), skills)
    for row, round_id in enumerate(since):
        if round_id in rounds:
            _frame(axes, rounds.index(round_id), row, "#D55E00")
    axes.set_title("Accuracy matrix (framed: the round that brought the skill)", color=INK)
    return figure


def cluster_entropies(clusters: Sequence[dict[str, Any]]) -> Figure:
    """Clusters x experts: the entropy of each score in each cluster in bits, the winner framed.

    Args:
        clusters: those of selectors.json.
    """
    shown = _largest(clusters)
    experts = list(dict.fromkeys(name for cluster in shown for name in cluster.get("entropies") or {}))
    values = [[(cluster.get("entropies") or {}).get(name) for name in experts] for cluster in shown]
    figure = Figure(figsize=(2.6 + 1.0 * max(3, len(experts)), 1.4 + 0.24 * max(4, len(shown))), layout="constrained")
    axes = figure.subplots()
    _heat_map(axes, figure, values, "entropy in bits", None, None)
    axes.set_xticks(range(len(experts)), [name.replace("_", "\n") for name in experts])
    axes.set_yticks(range(len(shown)), [f"{c['cluster']}  ({c['size']:,})" for c in shown])
    axes.set_ylabel("cluster (samples)")
    for row, cluster in enumerate(shown):
        if cluster["selector"] in experts:
            _frame(axes, experts.index(cluster["selector"]), row, "#D55E00")
    axes.set_title(f"Entropy of each expert (framed: the selector){_only(shown, clusters)}", color=INK)
    return figure


def pool_history(
    rounds: Sequence[str], pool: Sequence[int | None], selected: Sequence[int | None], pruned: Sequence[int | None]
) -> Figure:
    """Size of the pool after each round above, what the round selected and pruned below."""
    figure = Figure(figsize=(max(6.0, 1.5 + 0.55 * len(rounds)), 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    places = np.arange(len(rounds))
    bars = above.bar(places, [value or 0 for value in pool], color="#0072B2", width=0.7)
    below_bars = [
        below.bar(places - 0.2, [value or 0 for value in selected], color="#009E73", width=0.38, label="selected"),
        below.bar(places + 0.2, [value or 0 for value in pruned], color="#D55E00", width=0.38, label="pruned"),
    ]
    if len(rounds) <= 16:
        for container in (bars, *below_bars):
            panel = above if container is bars else below
            panel.bar_label(container, fmt="{:,.0f}", fontsize=7.5, padding=1)
    for panel in (above, below):
        _plain(panel)
        panel.margins(y=0.15)
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.yaxis.set_major_formatter("{x:,.0f}")
    above.set_ylabel("samples in the pool")
    below.set_ylabel("samples")
    below.legend(frameon=False, fontsize=8, ncols=2, loc="upper left", bbox_to_anchor=(0, 1.2))
    _round_ticks(below, rounds)
    above.set_title("The pool, and what each round trained on and pruned", color=INK)
    return figure


def cluster_sizes(clusters: Sequence[dict[str, Any]]) -> Figure:
    """Size of each cluster, and what of it was selected, largest first; the selector stands in the label."""
    shown = _largest(clusters)
    figure = Figure(figsize=(7.5, 1.3 + 0.22 * max(4, len(shown))), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(places, [c["size"] for c in shown], color=FAINT, height=0.8, label="size")
    axes.barh(places, [c["selected"] for c in shown], color="#009E73", height=0.8, label="selected")
    budgets = [c["budget"] for c in shown]
    axes.plot(budgets, places, linestyle="", marker="|", markersize=9, color=INK, label="budget")
    axes.set_yticks(places, [f"{c['cluster']}  {c['selector']}" for c in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("samples")
    axes.legend(frameon=False, loc="lower right")
    _plain(axes, grid="x")
    axes.set_title(f"Clusters, their budgets and selectors{_only(shown, clusters)}", color=INK)
    return figure


def curve_of_k(curve: Sequence[dict[str, Any]], chosen: int, chosen_by: str) -> Figure:
    """Silhouette over the number of clusters, the chosen number marked.

    Args:
        curve: {"k", "silhouette"} each.
    """
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    points = sorted((point["k"], point["silhouette"]) for point in curve)
    ks, heights = [k for k, _ in points], [height for _, height in points]
    axes.plot(ks, heights, color="#0072B2", marker="o", markersize=4)
    axes.axvline(chosen, color="#D55E00", linewidth=1.2, linestyle="--")
    axes.annotate(
        f"k = {chosen} ({chosen_by})", (chosen, 0.03), xycoords=("data", "axes fraction"), va="bottom",
        xytext=(5, 0), textcoords="offset points", color="#D55E00",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("clusters k")
    axes.set_ylabel("simplified silhouette")
    _plain(axes)
    axes.set_title("How many pseudo-skills", color=INK)
    return figure


def write_pictures(project: Project, round_id: str, lineage: list[dict[str, Any]]) -> list[Path]:
    """Write the pictures that the round's files allow to rounds/<round>/pictures/ as PNG.

    Args:
        lineage: as `adapt-inf lineage --json`; only the round and its ancestors are shown.
    """
    files = RoundFiles(project, round_id)
    figures: dict[str, Figure] = {}
    if files.matrix.get("skills"):
        columns, rows = matrix_table(files.matrix)
        rounds, names = columns[4:], [f"{row[0]}/{row[1]}" for row in rows]
        average = _averages(rounds, rows)
        curves = [Curve(row[0], row[1], row[4:], rounds.index(row[2]) if row[2] in rounds else 0) for row in rows]
        figures["forgetting"] = skill_curves(rounds, curves, average)
        late = max(0, len(rounds) - _MOST_ROUNDS)
        cells, since = [row[4 + late :] for row in rows], [row[2] for row in rows]
        figures["accuracy_matrix"] = accuracy_matrix(rounds[late:], names, cells, since)
    clusters = files.selectors.get("clusters", [])
    if clusters:
        figures["cluster_sizes"] = cluster_sizes(clusters)
        if any(cluster.get("entropies") for cluster in clusters):
            figures["cluster_entropies"] = cluster_entropies(clusters)
    if files.curve.get("curve"):
        figures["curve_of_k"] = curve_of_k(files.curve["curve"], files.curve["k"], files.curve["chosen_by"])
    if line := ancestry(lineage, round_id)[-_MOST_ROUNDS:]:
        kinds = ("pool_size", "selected", "pruned")
        pool, selected, pruned = ([entry.get(kind) for entry in line] for kind in kinds)
        figures["pool"] = pool_history([entry["round"] for entry in line], pool, selected, pruned)
    folder = project.round(round_id) / "pictures"
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        write_whole(path, lambda part, figure=figure: figure.savefig(part, dpi=_DPI, format="png"))  # type: ignore[misc]
        paths.append(path)
    return paths


def _averages(rounds: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[float | None]:
    """Mean over the skills that a round or one before it brought: the average accuracy after each round."""
    averages: list[float | None] = []
    for position, _ in enumerate(rounds):
        so_far = set(rounds[: position + 1])
        scores = [row[4 + position] for row in rows if row[2] in so_far and row[4 + position] is not None]
        averages.append(float(np.mean(scores)) if scores else None)
    return averages


def _curves_of_suite(axes: Axes, rounds: int, suite: str, members: list[Curve], average: list[float | None]) -> None:
    places = np.arange(rounds)
    marker = "o" if rounds <= 20 else ""
    axes.plot(places, _with_gaps(average), color=INK, linewidth=2.8, zorder=1)
    ends: list[tuple[float, str, str]] = []
    for position, curve in enumerate(members):
        colour = COLOURS[position % len(COLOURS)]
        heights = np.array(_with_gaps(curve.scores))
        rise, own = slice(0, curve.since + 1), slice(curve.since, None)
        axes.plot(places[rise], heights[rise], color=colour, linewidth=1.1, linestyle=":", zorder=2)
        axes.plot(places[own], heights[own], color=colour, linewidth=1.6, marker=marker, markersize=3.5, zorder=3)
        known = heights[np.isfinite(heights)]
        if known.size:
            ends.append((float(known[-1]), curve.skill, colour))
    for height, (_, name, colour) in zip(
        spread([end[0] for end in sorted(ends)], _LABEL_GAP), sorted(ends), strict=True
    ):
        axes.annotate(
            name, (1.0, height), xycoords="axes fraction", xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=8, color=colour,
        )  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.set_title(suite, fontsize=10, color=INK, loc="left")
    _plain(axes)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Sorted heights in 0..1 pushed apart to `gap` (less where they would not fit), still in order and in 0..1."""
    gap = min(gap, 1 / max(1, len(heights) - 1))
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    ceiling = 1.0
    for position in range(len(placed) - 1, -1, -1):
        placed[position] = min(placed[position], ceiling)
        ceiling = placed[position] - gap
    return placed


def _heat_map(
    axes: Axes,
    figure: Figure,
    values: Sequence[Sequence[float | None]],
    name: str,
    low: float | None,
    high: float | None,
) -> None:
    grid = np.array([_with_gaps(row) for row in values], dtype=np.float64)
    axes.set_facecolor("#EEEEEE")
    image = axes.imshow(np.ma.masked_invalid(grid), cmap="cividis", vmin=low, vmax=high, aspect="auto")
    figure.colorbar(image, ax=axes, label=name, fraction=0.04, pad=0.02)
    if grid.size > _MOST_FIGURES:
        return
    bright = np.asarray(image.norm(grid)) > 0.55
    for row, column in np.argwhere(np.isfinite(grid)):
        axes.text(
            column, row, f"{grid[row, column]:.2f}", ha="center", va="center", fontsize=8,
            color="black" if bright[row, column] else "white",
        )  # fmt: skip


def _frame(axes: Axes, column: int, row: int, colour: str) -> None:
    box = (column - 0.46, row - 0.44)
    axes.add_patch(Rectangle(box, 0.92, 0.88, fill=False, edgecolor=colour, linewidth=2.2))


def _round_ticks(axes: Axes, rounds: Sequence[str]) -> None:
    """Names of the rounds where they fit, else every so many."""
    every = math.ceil(len(rounds) / 12)
    places = list(range(0, len(rounds), every))
    axes.set_xticks(places, [rounds[place] for place in places], fontsize=8)


def _largest(clusters: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(clusters, key=lambda cluster: (-cluster["size"], cluster["cluster"]))[:_MOST_BARS]


def _only(shown: Sequence[Any], all_of_them: Sequence[Any]) -> str:
    return "" if len(shown) == len(all_of_them) else f", the {len(shown)} largest of {len(all_of_them)}"


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _plain(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors="#555555", labelsize=8)
    axes.grid(axis=grid, color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)

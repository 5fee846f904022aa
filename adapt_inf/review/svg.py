"""Drawings as SVG text: panels of a few hundred pixels, which a page wraps as it has room and a file shows in a grid.

Plain text instead of a plotting library: a picture costs about a millisecond, stays sharp in print and on a phone, its
words can be searched, and it takes the reader's light or dark colours (`STYLE`). The same data give the same bytes.
Data colours are Okabe and Ito's, which the colour-blind tell apart. The cost: widths of text are estimated.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

BLUE, ORANGE, GREEN, PINK = "#2f80c3", "#d9660f", "#1f9e77", "#c06fa5"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#c99700", "#4bb0dd", "#8a63c9", "#8b8f96")

_SIZE = 12.0  # of text, in pixels
_MARGIN = 14
_LETTER = 0.61  # of its size: how wide a letter is on average in the widest of the fonts, DejaVu Sans
_LEAST = 0.85  # of its size to which a narrow page may shrink a panel; beyond that it is moved sideways

# Ink, muted ink, lines, the ground and a weak fill, as the reader's system wants them.
_LIGHT = "--ink:#1d2733;--muted:#5d6978;--line:#dde2e8;--ground:#ffffff;--weak:#c9d1da"
_DARK = "--ink:#e6eaef;--muted:#a3aebb;--line:#39424e;--ground:#161b22;--weak:#4a5563"

STYLE = (
    ".chart text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;fill:var(--ink)}"
    ".chart .m{fill:var(--muted)}.chart .l{stroke:var(--line);fill:none}.chart .i{stroke:var(--ink);fill:none}"
    ".chart .w{fill:var(--weak)}.chart .h{paint-order:stroke;stroke:var(--ground);stroke-width:3px}"
)
"""The rules that every drawing needs; the page around it sets the five colours."""

COLOUR_RULES = (
    f":root{{{_LIGHT};color-scheme:light dark}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}@media print{{:root{{{_LIGHT}}}}}"
)


@dataclass(frozen=True)
class Panel:
    """A drawing of `width` x `height` pixels: SVG elements, the origin at the upper left."""

    width: float
    height: float
    body: str


def inline(panel: Panel, label: str) -> str:
    """A panel as an element of a page; `label` is what a screen reader says."""
    size = f'width="{panel.width:.0f}" height="{panel.height:.0f}" viewBox="0 0 {panel.width:.1f} {panel.height:.1f}"'
    size += f' style="min-width:{_LEAST * panel.width:.0f}px"'
    return f'<svg class="chart" {size} role="img" aria-label="{escape(label)}">{panel.body}</svg>'


def document(title: str, panels: Sequence[Panel], columns: int = 3) -> str:
    """A file of its own: the title, then the panels in rows."""
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    parts = [text(_MARGIN, 26, title, size=15, bold=True)]
    y, width = 40.0, _MARGIN * 2 + text_width(title, 15) * 1.08
    for row in rows:
        x = float(_MARGIN)
        for panel in row:
            parts.append(f'<g transform="translate({x:g} {y:g})">{panel.body}</g>')
            x += panel.width + _MARGIN
        y += max(panel.height for panel in row) + _MARGIN
        width = max(width, x)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="{width:.0f}" height="{y:.0f}"'
    ground = '<rect width="100%" height="100%" style="fill:var(--ground)"/>'
    rules = f"<style>{COLOUR_RULES}{STYLE}</style>"
    return f'{head} viewBox="0 0 {width:.0f} {y:.0f}">{rules}{ground}{"".join(parts)}</svg>\n'


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: float = _SIZE,
    fill: str = "",
    kind: str = "",
    bold: bool = False,
) -> str:
    """One line of text; `kind` is a class of `STYLE` (m: muted, h: with a halo), `fill` a colour instead of ink."""
    marks = f' text-anchor="{anchor}"' if anchor != "start" else ""
    marks += f' class="{kind}"' if kind else ""
    marks += f' style="fill:{fill}"' if fill else ""
    marks += ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{marks}>{escape(_printable(words))}</text>'


def rect(x: float, y: float, width: float, height: float, fill: str = "", title: str = "", kind: str = "") -> str:
    """A filled box; `title` shows under the pointer."""
    marks = f' fill="{fill}"' if fill else f' class="{kind}"'
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"{marks}'
    return f"{box}><title>{escape(_printable(title))}</title></rect>" if title else f"{box}/>"


def frame(x: float, y: float, width: float, height: float, colour: str = ORANGE) -> str:
    """A box without a filling, to mark a cell."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="none" '
        f'stroke="{colour}" stroke-width="2.5"/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str = "", width: float = 1, dash: str = "") -> str:
    """A straight line, in the colour of the grid unless told otherwise."""
    marks = f'stroke="{colour}"' if colour else 'class="l"'
    marks += f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {marks} stroke-width="{width:g}"/>'


def path(points: Sequence[tuple[float, float] | None], colour: str = "", width: float = 1.6, dash: str = "") -> str:
    """A line through points, in ink unless told otherwise; None is a gap."""
    steps, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        steps.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "L"
    marks = f'stroke="{colour}" fill="none"' if colour else 'class="i"'
    marks += f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{"".join(steps)}" {marks} stroke-width="{width:g}" stroke-linejoin="round"/>' if steps else ""


def dots(points: Sequence[tuple[float, float]], colour: str, size: float = 4, opacity: float = 1) -> str:
    """Many round dots of one colour as one path: some ten bytes each."""
    steps = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    marks = f'stroke="{colour}"' if colour else 'class="i"'
    marks += f' stroke-opacity="{opacity:g}"' if opacity < 1 else ""
    return f'<path d="{steps}" {marks} stroke-width="{size:g}" stroke-linecap="round"/>' if steps else ""


def legend(x: float, y: float, entries: Sequence[tuple[str, str]], width: float) -> tuple[str, float]:
    """Swatches with names, wrapped at `width`.

    Args:
        entries: (name, colour); an empty colour is the weak fill.

    Returns:
        The elements, and the height that they take.
    """
    parts, left, top = [], x, y
    for name, colour in entries:
        taken = 16 + text_width(name, 11) + 12
        if left > x and left + taken > x + width:
            left, top = x, top + 16
        parts.append(rect(left, top, 10, 10, colour, kind="w"))
        parts.append(text(left + 14, top + 9, name, size=11, kind="m"))
        left += taken
    return "".join(parts), top - y + 18


def text_width(words: str, size: float = _SIZE) -> float:
    """About how many pixels a line of text takes."""
    wide = sum(1.75 if unicodedata.east_asian_width(letter) in "WF" else 1.0 for letter in words)
    return wide * _LETTER * size


def cut(words: str, width: float, size: float = _SIZE) -> str:
    """`words`, shortened to about `width` pixels; a share at their end ("34%") stays, for without it they say more."""
    words = " ".join(words.split())
    if text_width(words, size) <= width:
        return words
    found = re.search(r" [0-9]{1,3}%$", words)
    share = found[0] if found and text_width(found[0], size) < width / 2 else ""
    words = words.removesuffix(share)
    while words and text_width(words + share, size) > width - size:
        words = words[:-1]
    return f"{words}…{share}"


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Sorted places in low..high pushed apart to `gap` (less where they would not fit), still in order and inside."""
    gap = min(gap, (high - low) / max(1, len(heights) - 1))
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    ceiling = high
    for position in range(len(placed) - 1, -1, -1):
        placed[position] = min(placed[position], ceiling)
        ceiling = placed[position] - gap
    return placed


def _printable(words: str) -> str:
    """Without what XML cannot hold."""
    return (
        "".join(
            letter for letter in words if letter in "\t\n" or (letter >= " " and not "\ud800" <= letter <= "\udfff")
        )
        .replace("\ufffe", "")
        .replace("\uffff", "")
    )

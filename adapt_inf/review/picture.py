"""A picture: panels, and the words without which they say nothing."""

from __future__ import annotations

from dataclasses import dataclass

from adapt_inf.review.svg import Panel


@dataclass(frozen=True)
class Picture:
    """Panels with a title, a sentence that says how to read them and one that says what they show here.

    Attributes:
        columns: panels in a row of the file; a page wraps them as it has room.
    """

    title: str
    how: str
    shows: str
    panels: tuple[Panel, ...]
    columns: int = 3

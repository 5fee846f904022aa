"""The pool of selector experts: one file a score, and others by the entry point group `adapt_inf.scores`.

A score is a class without arguments that has `name`, `needs` and `compute`, and may have `draw`; see `base.Score`. The
signals that a score may need are in `base.SIGNALS`. To add one to an installed package:

    [project.entry-points."adapt_inf.scores"]
    answer_length = "my_package.scores:AnswerLength"
"""

from adapt_inf.selection.scores.base import (
    HIDDEN,
    NLL_WITHOUT_IMAGE,
    SIGNALS,
    VECTORS,
    Score,
    Signals,
    Vectors,
    draw_of,
)
from adapt_inf.selection.scores.compute import compute, without_value
from adapt_inf.selection.scores.registry import available, resolve

__all__ = [
    "HIDDEN",
    "NLL_WITHOUT_IMAGE",
    "SIGNALS",
    "VECTORS",
    "Score",
    "Signals",
    "Vectors",
    "available",
    "compute",
    "draw_of",
    "resolve",
    "without_value",
]

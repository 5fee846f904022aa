"""GraNd: how far one step on the sample would move the weights."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals


class GraNd:
    """L2 norm of the sample's gradient, from the exact gradient that the sketch projects.

    Paul et al. 2021 (arXiv 2107.07075), at the chosen layers instead of all.
    """

    name = "grand"
    needs = ("grand",)

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) >= 0."""
        return signals["grand"].copy()

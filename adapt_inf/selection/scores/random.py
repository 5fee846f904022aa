"""Random: the selector that knows nothing, to compare with."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals


class Random:
    """Seeded uniform draws in [0, 1)."""

    name = "random"
    needs = ("nll",)  # for the number of samples only

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) in [0, 1)."""
        return rng.random(len(signals["nll"]))

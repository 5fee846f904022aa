"""Entropy: how undecided the model is, whatever the answer says."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals


class Entropy:
    """mean_i H(p_i) over answer tokens i, in nats; never over the question's tokens, which the loss does not count."""

    name = "entropy"
    needs = ("entropy",)

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) nats, 0 where the model is certain."""
        return signals["entropy"].copy()

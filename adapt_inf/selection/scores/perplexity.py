"""Perplexity: how surprised the model is by the answer."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals


class Perplexity:
    """log ppl = mean_i nll_i over answer tokens, in nats; ppl is the exp of the mean, never the mean of exps.

    Kept as a logarithm: the exp would only stretch the upper strata, and overflow on a hopeless answer.
    """

    name = "perplexity"
    needs = ("nll",)

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) nats, the lower the more expected."""
        return signals["nll"].copy()

"""EL2N: how far the model's prediction is from the answer, as the L2 norm of the error vector."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals


class EL2N:
    """mean_i sqrt(sum_v p_iv^2 - 2 p_iy + 1) over answer tokens i; 0 when certain and right, sqrt(2) certain and wrong.

    Paul et al. 2021 (arXiv 2107.07075), per token. The sketch pass yields it as a signal.
    """

    name = "el2n"
    needs = ("el2n",)

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) in 0..sqrt(2)."""
        return signals["el2n"].copy()

"""What a score is: a name, the signals it needs, and one function over arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from adapt_inf.selection.arrays import FloatArray

Signals = Mapping[str, FloatArray]

SIGNALS = {
    "nll": "mean negative log-likelihood of the answer's tokens, in nats",
    "el2n": "mean L2 distance of the predicted distribution to the answer's one-hot",
    "entropy": "mean entropy of the predicted distribution, in nats",
    "grand": "L2 norm of the sample's gradient",
    "nll_without_image": "`nll` with images blank or removed, nan for text-only samples; needs one more forward",
}
"""The signals there are, each an (n,) float64 array in candidate order."""


@runtime_checkable
class Score(Protocol):
    """A per-sample importance used to select.

    Attributes:
        name: what `select.scores` calls it.
        needs: the signals that `compute` reads, from SIGNALS. One at least: its length is the number of samples.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """The (n,) score; nan for a sample that has none. All randomness comes from `rng`."""
        ...

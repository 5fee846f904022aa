"""VisNec: the samples whose answer cannot be had without looking."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals


class VisNec:
    """The loss without the image minus the loss with it, in nats; the highest of each cluster are taken.

    Near zero where the text alone gives the answer away, negative where the image misleads: both come last. VisNec
    (arXiv 2603.01195) takes the image away altogether: `score.without_image: drop`. The value is that of
    `image_grounding`; what differs is that this one selects from the top, not from every level.
    """

    name = "visnec"
    needs = ("nll_without_image", "nll")
    draw = "highest"

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) nats; nan for text-only samples."""
        necessity: FloatArray = signals["nll_without_image"] - signals["nll"]
        return necessity

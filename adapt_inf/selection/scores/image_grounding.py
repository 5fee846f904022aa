"""Image grounding: how much the answer leans on the image."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals


class ImageGrounding:
    """log perplexity without the image minus log perplexity with it, in nats.

    Positive when the answer leans on the image, near zero when the text alone gives it away. Maharana et al. 2025
    (arXiv 2410.10636), the Image Grounding score, in logs.
    """

    name = "image_grounding"
    needs = ("nll_without_image", "nll")

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) nats; nan for text-only samples, where `nll_without_image` is nan."""
        return signals["nll_without_image"] - signals["nll"]

"""What a score is: a name, the signals it needs, and one function over arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import FloatArray

Signals = Mapping[str, Any]
"""By name: (n,) arrays, and `Vectors` under the names in VECTORS."""

SIGNALS = {
    "nll": "mean negative log-likelihood of the answer's tokens, in nats",
    "el2n": "mean L2 distance of the predicted distribution to the answer's one-hot",
    "entropy": "mean entropy of the predicted distribution, in nats",
    "grand": "L2 norm of the sample's gradient",
    "nll_without_image": "`nll` with images blank or removed, nan for text-only samples; needs one more forward",
    "skill": "number of the sample's skill in its drop, an integer",
    "gradient": "`Vectors`: gradient sketches",
    "hidden": "`Vectors`: mean hidden states of the answer's tokens at the sketched layer; needs `sketch.hidden: true`",
}
"""The signals there are, in candidate order; each an (n,) float64 array where nothing else is said."""

VECTORS = ("gradient", "hidden")
HIDDEN = "hidden"
NLL_WITHOUT_IMAGE = "nll_without_image"


class Vectors(Protocol):
    """n vectors of length `dim` and of L2 norm 1, on disk; zeros for a sample that the model cannot read."""

    dim: int

    def __len__(self) -> int: ...

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start .. stop as a new (rows, dim) array."""
        ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """These rows, in this order, as a new array."""
        ...


@runtime_checkable
class Score(Protocol):
    """A per-sample importance used to select.

    Attributes:
        name: what `select.scores` calls it.
        needs: the signals that `compute` reads, from SIGNALS. One at least: its length is the number of samples.
        draw: how it selects in a cluster; may be left out. `coverage`: an equal share from every level of its values;
            `highest`: those with the highest values.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """The (n,) score; nan for a sample that has none. All randomness comes from `rng`."""
        ...


DRAWS = ("coverage", "highest")


def draw_of(score: Score) -> str:
    """How a score selects in a cluster, one of DRAWS."""
    return str(getattr(score, "draw", DRAWS[0]))

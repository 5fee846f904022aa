"""RDS+: the samples whose representation is closest to examples of the tasks at hand."""

from __future__ import annotations

import numpy as np

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals
from adapt_inf.selection.scores.queries import closeness, draw_queries


class RDSPlus:
    """The highest cosine similarity of a sample's hidden state to a query; the highest of each cluster are taken.

    Ivison et al. 2025 (arXiv 2503.01807) pool the last layer's states over all tokens, the later the heavier, and let
    queries choose in turn, from samples of the evaluated tasks. Here the states are those of the sketch pass (the mean
    over the answer's tokens at the sketched layer), the queries training samples of every skill (see `queries`), and
    each cluster's budget keeps the balance that their turns keep there.
    """

    name = "rds_plus"
    needs = ("nll", "skill", "hidden")
    draw = "highest"

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) in -1..1; nan for a sample without a vector."""
        queries = draw_queries(signals["skill"], np.isfinite(signals["nll"]), rng)
        return closeness(signals["hidden"], queries)

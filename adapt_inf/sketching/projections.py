"""CountSketch: a long gradient to a short vector that keeps dot products, one addition per coordinate.

Coordinate i of the input is added to place h(i) of the output with sign s(i), both from a hash of (seed, i). Dot
products survive in expectation, with variance at most 2 |x|^2 |y|^2 / dim (Charikar, Chen & Farach-Colton 2002;
Weinberger et al. 2009). At 2048 it kept pairwise cosines of gradients as well as a dense Rademacher matrix, whose cost
is `dim` times this.

The sign is folded into the place: the accumulator has 2 x dim places, the second half for coordinates with sign -1, and
`finish` subtracts the halves. So a block of gradients is added by one scatter, with no signed copy of it.

The hash has no state: places are recomputed for any range of coordinates, so a layer of any size can be sketched in
blocks. They are kept (8 bytes each) where there is room for that.
"""

from __future__ import annotations

import torch
from torch import Tensor

TABLE_BYTES = 2**29  # of places kept, where nothing else is said; above that each block hashes its own again

# SplitMix64 (Steele, Lea & Flood 2014), as signed 64-bit integers, whose products wrap in torch.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which torch only shifts arithmetically."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Tensor) -> Tensor:
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


class CountSketch:
    """A seeded CountSketch of vectors of `coordinates` numbers into `dim`.

    Args:
        coordinates: length of the vectors, D.
        dim: length of a sketch.
        seed: another seed gives an independent sketch; sketches of different seeds cannot be compared.
        device: where the vectors are.
        table_bytes: the most that places may be kept in; the sketch is the same whether they are.
    """

    def __init__(
        self,
        coordinates: int,
        dim: int,
        seed: int,
        device: torch.device | str = "cpu",
        table_bytes: int = TABLE_BYTES,
    ) -> None:
        self.coordinates = coordinates
        self.dim = dim
        self._key = _mix(torch.tensor(seed, dtype=torch.int64, device=device) + _GAMMA)
        self._device = torch.device(device)
        self._table = self._hash(0, coordinates) if 8 * coordinates <= table_bytes else None

    @property
    def keeps_places(self) -> bool:
        return self._table is not None

    def _hash(self, start: int, stop: int) -> Tensor:
        index = torch.arange(start, stop, dtype=torch.int64, device=self._device)
        hashed = _mix(self._key + (index + 1) * _GAMMA)
        place = _shift_right(hashed, 32) % self.dim  # bias of the modulus: under dim / 2^32
        return place + (hashed & 1) * self.dim

    def places(self, start: int, stop: int) -> Tensor:
        """(stop - start,) int64 places in an accumulator: h(i) where s(i) = +1, h(i) + dim where s(i) = -1."""
        return self._table[start:stop] if self._table is not None else self._hash(start, stop)

    def accumulator(self, rows: int) -> Tensor:
        """(rows, 2 * dim) float32 zeros, to be filled by `add`."""
        return torch.zeros(rows, 2 * self.dim, dtype=torch.float32, device=self._device)

    def add(self, accumulator: Tensor, start: int, block: Tensor) -> None:
        """Add coordinates start .. start + m of every row.

        Args:
            accumulator: (rows, 2 * dim), changed in place.
            start: the first coordinate of the block.
            block: (rows, m) float32.
        """
        places = self.places(start, start + block.shape[1])
        accumulator.scatter_add_(1, places.expand(block.shape[0], -1), block)

    def finish(self, accumulator: Tensor) -> Tensor:
        """(rows, dim) sketches from an accumulator that got every coordinate."""
        return accumulator[:, : self.dim] - accumulator[:, self.dim :]

    def __call__(self, vectors: Tensor) -> Tensor:
        """(rows, dim) sketches of (rows, D) vectors that are there as a whole."""
        accumulator = self.accumulator(vectors.shape[0])
        self.add(accumulator, 0, vectors)
        return self.finish(accumulator)

"""How well sketches keep what the method asks of them: which samples have similar gradients.

    python benchmarks/sketch_fidelity.py [--model FOLDER] [--samples N] [--batch N] [--steps N] [--learned N] [--json F]

Samples of the demo's drops. Against the exact gradients of the same samples: `r`, the correlation of the cosines of all
pairs, and `10-NN`, the share of a sample's ten nearest by exact cosine that are among its ten nearest by sketch. All
sketches are divided by their norm and rounded to fp16, as they are stored.

    countsketch   ours: adapt_inf.sketching.projections
    rademacher    a dense matrix of signs, by trak.projectors.BasicProjector, as the released code has
    factored      each map's gradient G to P G Q: only the long side of a LoRA factor, both sides of a weight

for three models: the middle layer's weights (`full`), the last layer's (`full, last layer`), and the factors of an
adapter in the middle layer after some steps of training (`lora`). A second table says how much the neighbours depend
on that choice: the ten nearest of one beside those of another, both exact.

`foretold r`: that of a projection whose error in a cosine has variance 1 / dim, on cosines of the spread `cosine std`.
What the spread does not allow, no hash can give: the remedy is a larger dim.

`--learned N` adds the best that a linear map into so many numbers could be expected to do: principal components of the
exact gradients of N other samples. A bound, no way to sketch: each sample then costs its products with N gradients.

The exact gradients never exist as a whole: the maps are taken a few at a time (64k coordinates of all samples), each
time with a forward and backward of every batch, and inner products are summed up over them.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from released_sketch import projector
from report import finish, machine, table
from shipped import BASE, bare_model, samples
from torch import Tensor
from transformers.utils import logging as transformers_logging

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.demo.probe_drops import Listed
from adapt_inf.models.batches import Batch, collate, length_buckets, token_lengths
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.training import train
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.gradients import Plan, Sketcher
from adapt_inf.sketching.projections import CountSketch

DIMS = (512, 1024, 2048, 4096)
WIDE = (512, 1024, 2048, 2560, 4096, 8192, 12_288, 16_384)  # of ours, whose cost hardly depends on it
GROUP = 2**16  # coordinates at a time, or one map where it has more
NEIGHBOURS = 10
RATE = 3e-3  # of the adapter's training: the demo's

Cosines = NDArray[np.float32]


class Projection(Protocol):
    """Takes the gradients a group of maps at a time; a group's coordinates follow those of the one before."""

    def add(self, plan: Plan, maps: range, block: Tensor) -> None: ...

    def sketches(self) -> dict[int, Tensor]: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=120, help="of the adapter's training")
    parser.add_argument("--learned", type=int, default=0, help="other samples to learn principal components from")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    drawn = samples(args.samples)
    vlm = bare_model(args.model)
    rows, cosines = [], {}
    for name, sketcher in (
        ("full", Sketcher(vlm, hidden=True)),
        ("full, last layer", Sketcher(vlm, layers="last", hidden=True)),
    ):
        found, cosines[name], hidden = measure(vlm, sketcher, drawn, args.batch, dense=name == "full")
        rows += [{"gradients": name, **row} for row in found]
        cosines[f"hidden{name.removeprefix('full')}"] = hidden
    if args.learned:
        rows += [{"gradients": "full", **row} for row in learned(vlm, args)]
    vlm = trained(vlm, drawn, args.steps)
    found, cosines["lora"], _ = measure(vlm, Sketcher(vlm, hidden=True), drawn, args.batch, dense=True)
    rows += [{"gradients": "lora", **row} for row in found]
    if args.learned:
        rows += [{"gradients": "lora", **row} for row in learned(vlm, args)]
    print(table(rows, ["gradients", "coordinates", "cosine std", "projection", "dim", "r", "10-NN", "foretold r"]))
    first = cosines["full"]
    choices = [{"beside full": name, **agreement(first, other)} for name, other in cosines.items() if name != "full"]
    print("\n" + table(choices, ["beside full", "r", "10-NN"]))
    finish(
        "sketch_fidelity", {"machine": machine(), "samples": len(drawn), "rows": rows, "choices": choices}, args.json
    )


def trained(vlm: VLM, drawn: Sequence[Sample], steps: int) -> VLM:
    """The model with an adapter of the default shape, trained on the samples for some steps."""
    knobs = replace(Train(), steps=steps, learning_rate=RATE)
    adapted = with_adapter(vlm, knobs, seed=0)
    with tempfile.TemporaryDirectory() as work:
        train(adapted, Listed(drawn), knobs, 0, Path(work))
    adapted.model.eval()
    return adapted


def measure(
    vlm: VLM, sketcher: Sketcher, drawn: Sequence[Sample], size: int, dense: bool
) -> tuple[list[dict[str, Any]], Cosines, Cosines]:
    """Rows of figures, exact cosines of the gradients, and cosines of the hidden states; (n, n) each."""
    order = list(length_buckets(token_lengths(vlm, drawn), size))
    batches = [collate(vlm, [drawn[int(i)] for i in rows]) for rows in order]
    plan, n = sketcher.plan, len(drawn)
    projections: dict[str, Projection] = {"countsketch": Counted(plan, n)}
    if dense:
        projections |= {"rademacher": Dense(n), "factored": Factored(plan, n)}
    products = torch.zeros(n, n, dtype=torch.float64)
    hidden = torch.zeros(n, sketcher.dims["hidden"])
    for maps in groups(plan):
        block, hidden = gradients(sketcher, batches, order, maps)
        products += (block @ block.T).double()
        for projection in projections.values():
            projection.add(plan, maps, block)
    exact = unit(products)
    std = round(float(exact[np.triu_indices(n, 1)].std()), 4)
    about = {"coordinates": plan.coordinates, "cosine std": std}
    found = []
    for name, projection in projections.items():
        for dim, sketches in projection.sketches().items():
            line = {**about, "projection": name, "dim": dim, **agreement(exact, as_stored(sketches))}
            found.append(line if name == "factored" else {**line, "foretold r": foretold(std, dim)})
    return found, exact, as_stored(hidden)


def learned(vlm: VLM, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of figures for the principal components of the unit gradients of other samples, by inner products alone."""
    sketcher = Sketcher(vlm, hidden=True)
    n, drawn = args.samples, others(args)
    order = list(length_buckets(token_lengths(vlm, drawn), args.batch))
    batches = [collate(vlm, [drawn[int(i)] for i in rows]) for rows in order]
    products = torch.zeros(len(drawn), len(drawn), dtype=torch.float64)
    for maps in groups(sketcher.plan):
        block, _ = gradients(sketcher, batches, order, maps)
        products += (block @ block.T).double()
    cosines = torch.from_numpy(unit(products)).double()
    values, vectors = torch.linalg.eigh(cosines[n:, n:])  # ascending
    found = []
    for dim in DIMS:
        if dim <= args.learned:
            components = vectors[:, -dim:] / values[-dim:].clamp_min(1e-12).sqrt()
            line = agreement(cosines[:n, :n].float().numpy(), as_stored((cosines[:n, n:] @ components).float()))
            found.append({"projection": "learned", "dim": dim, **line})
    return found


def others(args: argparse.Namespace) -> list[Sample]:
    """The samples of the other figures, and as many more as the components are learned from."""
    drawn = samples(args.samples)
    seen = {sample.sample_id for sample in drawn}
    more = [sample for sample in samples(args.samples + args.learned) if sample.sample_id not in seen]
    return drawn + more[: args.learned]


def groups(plan: Plan) -> Iterator[range]:
    """Maps that follow each other, GROUP coordinates together at most."""
    start, held = 0, 0
    for index, module in enumerate(plan.modules):
        if held and held + module.weight.numel() > GROUP:
            yield range(start, index)
            start, held = index, 0
        held += module.weight.numel()
    yield range(start, len(plan.modules))


def gradients(
    sketcher: Sketcher, batches: Sequence[Batch], order: Sequence[NDArray[np.int64]], maps: range
) -> tuple[Tensor, Tensor]:
    """(n, m) exact gradients to some of the maps, and the (n, width) hidden states, in the samples' order."""
    first, stop = span(sketcher.plan, maps)
    block = torch.empty(sum(len(batch) for batch in batches), stop - first)
    hidden = torch.empty(len(block), sketcher.dims["hidden"])
    for batch, rows in zip(batches, order, strict=True):
        _, states = sketcher.differentiate(batch)
        if states is not None:
            hidden[rows] = states
        for start, part in sketcher.gradient_blocks(len(batch)):
            if first <= start < stop:
                block[rows, start - first : start - first + part.shape[1]] = part
    return block, hidden


def span(plan: Plan, maps: range) -> tuple[int, int]:
    sizes = [module.weight.numel() for module in plan.modules]
    return sum(sizes[: maps.start]), sum(sizes[: maps.stop])


class Counted:
    def __init__(self, plan: Plan, n: int) -> None:
        self._sketches = [CountSketch(plan.coordinates, dim, seed=0) for dim in WIDE]
        self._sums = [sketch.accumulator(n) for sketch in self._sketches]

    def add(self, plan: Plan, maps: range, block: Tensor) -> None:
        for sketch, total in zip(self._sketches, self._sums, strict=True):
            sketch.add(total, span(plan, maps)[0], block)

    def sketches(self) -> dict[int, Tensor]:
        return {s.dim: s.finish(total) for s, total in zip(self._sketches, self._sums, strict=True)}


class Dense:
    """The widest one only: its first columns are the narrower ones."""

    def __init__(self, n: int) -> None:
        self._sum = torch.zeros(n, max(DIMS))

    def add(self, plan: Plan, maps: range, block: Tensor) -> None:
        columns = projector(block.shape[1], max(DIMS), columns=512, seed=maps.start)
        self._sum += columns.project(block, model_id=0)

    def sketches(self) -> dict[int, Tensor]:
        return {dim: self._sum[:, :dim] for dim in DIMS}


class Factored:
    """As many numbers for every map, by random matrices of signs on its sides; the short side of a factor stays."""

    def __init__(self, plan: Plan, n: int) -> None:
        self._sides = {dim: [self._pair(plan, index, dim) for index in range(len(plan.modules))] for dim in DIMS}
        self._parts: dict[int, list[Tensor]] = {dim: [] for dim in DIMS}

    @staticmethod
    def _pair(plan: Plan, index: int, dim: int) -> tuple[Tensor, Tensor]:
        height, width = plan.modules[index].weight.shape
        share = dim // len(plan.modules)
        short = min(height, width) if plan.params == "lora" else round(share**0.5)
        long = max(1, share // short)
        left, right = (short, long) if height <= width else (long, short)
        generator = torch.Generator().manual_seed(index)

        def side(length: int, to: int) -> Tensor:
            if plan.params == "lora" and length == min(height, width):
                return torch.eye(length)
            return (1.0 - 2.0 * torch.randint(2, (length, to), generator=generator).float()) / to**0.5

        return side(height, left), side(width, right)

    def add(self, plan: Plan, maps: range, block: Tensor) -> None:
        start = 0
        for index in maps:
            weight = plan.modules[index].weight
            own = block[:, start : start + weight.numel()].reshape(-1, *weight.shape)
            start += weight.numel()
            for dim in DIMS:
                left, right = self._sides[dim][index]
                self._parts[dim].append((left.T @ own @ right).reshape(len(own), -1))

    def sketches(self) -> dict[int, Tensor]:
        return {dim: torch.cat(parts, dim=1) for dim, parts in self._parts.items()}


def unit(products: Tensor) -> Cosines:
    """(n, n) cosines from inner products; a row of zeros has cosine zero with all."""
    norms = products.diagonal().clamp_min(0).sqrt()
    scale = torch.where(norms > 0, 1 / norms, 0.0)
    return (products * scale[:, None] * scale[None, :]).float().numpy()


def as_stored(sketches: Tensor) -> Cosines:
    rows = torch.nn.functional.normalize(sketches).half().float()
    return (rows @ rows.T).numpy()


def agreement(exact: Cosines, other: Cosines) -> dict[str, float]:
    """How far two (n, n) tables of cosines agree on pairs and on neighbours."""
    upper = np.triu_indices(len(exact), 1)
    r = np.corrcoef(exact[upper], other[upper])[0, 1]
    shared = [len(np.intersect1d(a, b)) for a, b in zip(nearest(exact), nearest(other), strict=True)]
    return {"r": round(float(r), 4), "10-NN": round(float(np.mean(shared)) / NEIGHBOURS, 4)}


def foretold(std: float, dim: int) -> float:
    """The r of a random projection whose error in a cosine has variance 1 / dim, on cosines of this spread."""
    return round(1 / (1 + 1 / (dim * std**2)) ** 0.5, 4)


def nearest(cosines: Cosines) -> NDArray[np.int64]:
    others = cosines.copy()
    np.fill_diagonal(others, -np.inf)
    return np.argpartition(-others, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


if __name__ == "__main__":
    main()

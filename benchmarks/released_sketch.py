"""The released way of sketching gradients, rebuilt from its description: the peer of the other benchmarks.

Rebuilt, not copied, from what the released code of the paper (github.com/adymaharana/adapt-inf) does to a sample, after
LESS (Xia et al. 2024, arXiv 2402.04333):

- one sample in a batch; a forward of the whole model with logits at every position; a backward to every weight that
  may be trained: all of them on a bare model, the adapter's factors where there is one;
- the gradients of one layer, one after the other; sixteen samples are stacked, cast to fp16, and projected together;
- a dense Rademacher projection to 8192 by `trak.projectors.BasicProjector` of PyPI's `traker`, which draws its matrix
  again for every sixteen samples, 128 columns at a time. On a GPU `fast_jl` takes its place, which a CPU cannot run.

Left out, in its favour: writing to disk, and the scores. It picks a layer by the first number in a parameter's name, so
a vision layer of that number comes with it; here the layer's linear maps are those of `Sketcher`, so that both ways
sketch the same numbers. `zero_order` is its other estimator: two forwards along one random direction a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from trak.projectors import BasicProjector, ProjectionType

from adapt_inf.models.batches import Batch
from adapt_inf.models.vlm import VLM

DIM = 8192
COLUMNS = 128  # of the projection that exist at a time
TOGETHER = 16  # samples projected at a time
STEP = 1e-3  # of the zero-order estimate


def projector(coordinates: int, dim: int = DIM, columns: int = COLUMNS, seed: int = 0) -> BasicProjector:
    return BasicProjector(
        grad_dim=coordinates,
        proj_dim=dim,
        seed=seed,
        proj_type=ProjectionType.rademacher,
        device=torch.device("cpu"),
        block_size=columns,
    )


def loss_of(vlm: VLM, batch: Batch) -> Tensor:
    """The family's own loss, logits at every position: for one sample the mean over its answer tokens."""
    labels = batch.input_ids.masked_fill(~batch.answers, -100)
    return vlm.model(**batch.inputs, labels=labels, use_cache=False).loss


def logits_and_labels(vlm: VLM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Of one sample, at all positions but the last: (T, vocabulary) logits, next tokens, and which are the answer."""
    logits = vlm.model(**batch.inputs, use_cache=False).logits[0, :-1]
    return logits, batch.input_ids[0, 1:], batch.answers[0, 1:]


def trainable(vlm: VLM) -> None:
    """Let every weight take a gradient, or the adapter's alone where there is one."""
    for name, parameter in vlm.model.named_parameters():
        parameter.requires_grad_(not vlm.adapted or "lora_" in name)


def gradients(vlm: VLM, maps: Sequence[nn.Linear], singles: Iterable[Batch]) -> Iterator[Tensor]:
    """(D,) float32 gradient of each batch of one, from a backward through the whole model."""
    trainable(vlm)
    for batch in singles:
        loss_of(vlm, batch).backward()
        yield torch.cat([module.weight.grad.reshape(-1) for module in maps if module.weight.grad is not None])
        vlm.model.zero_grad(set_to_none=True)


def project(projection: BasicProjector, rows: Iterable[Tensor]) -> Tensor:
    """(n, dim) sketches of n gradients, cast to fp16 and projected sixteen at a time."""
    done, waiting = [], []
    for row in rows:
        waiting.append(row)
        if len(waiting) == TOGETHER:
            done.append(projection.project(torch.stack(waiting).half(), model_id=0))
            waiting = []
    if waiting:
        done.append(projection.project(torch.stack(waiting).half(), model_id=0))
    return torch.cat(done)


def sketch(vlm: VLM, maps: Sequence[nn.Linear], singles: Iterable[Batch], dim: int = DIM) -> Tensor:
    """(n, dim) sketches of n batches of one."""
    return project(projector(sum(module.weight.numel() for module in maps), dim), gradients(vlm, maps, singles))


def zero_order(vlm: VLM, maps: Sequence[nn.Linear], singles: Iterable[Batch], seed: int = 0) -> Iterator[Tensor]:
    """(D,) float32 estimate of each sample's gradient: (l(w + ez) - l(w - ez)) / 2e * z, a fresh z for each sample."""
    generator = torch.Generator().manual_seed(seed)
    weights = [module.weight for module in maps]
    with torch.no_grad():
        for batch in singles:
            own = [weight.clone() for weight in weights]
            z = [torch.randn(weight.shape, generator=generator) for weight in weights]
            losses = []
            for sign in (1, -1):
                for weight, start, direction in zip(weights, own, z, strict=True):
                    weight.copy_(start + sign * STEP * direction)
                losses.append(loss_of(vlm, batch))
            for weight, start in zip(weights, own, strict=True):
                weight.copy_(start)
            slope = (losses[0] - losses[1]) / (2 * STEP)
            yield slope * torch.cat([direction.reshape(-1) for direction in z])

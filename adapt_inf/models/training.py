"""Tune a model's adapter on some samples: a plain loop, exact to resume.

AdamW on the LoRA factors, linear warm-up and cosine to zero, gradients clipped; the loss is the mean over the batch of
each sample's mean over its answer tokens. What costs time besides forward and backward is preparing samples, so each is
prepared once and kept as tensors up to `train.cache_mb`; what does not fit is prepared again each time it comes up. A
checkpoint holds the trained weights, AdamW's moments and the step; order and dropout masks are drawn anew from (seed,
epoch) and (seed, step), so a run that was killed ends with the same bytes as one that was not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.files import read_json, write_json, write_whole
from adapt_inf.models.batches import Batch, Encoded, encode, length_buckets, pad, token_lengths
from adapt_inf.models.likelihood import answer_logits, sample_nll
from adapt_inf.models.vlm import VLM
from adapt_inf.parallel import MeetingPlace, run_workers, worker_count
from adapt_inf.progress import progress

BETAS = (0.9, 0.98)  # short runs: the second moment must settle within some hundred steps
CHECKPOINT = "checkpoint.safetensors"
STEPS = "steps.json"
LEAST_PER_WORKER = 8  # samples of a batch: less would spend its time on waiting for the others
LENGTH_CHUNK = 1024  # samples read at once to learn their lengths


class Samples(Protocol):
    """Samples by position; adapt_inf.data.shards.SampleStore is one."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int] | NDArray[Any]) -> list[Sample]: ...


class PreparedSamples:
    """Batches of a set of samples, each sample prepared once while its tensors fit into `cache_bytes`."""

    def __init__(self, vlm: VLM, samples: Samples, cache_bytes: int) -> None:
        self._vlm = vlm
        self._samples = samples
        self._room = cache_bytes
        self._kept: dict[int, Encoded] = {}

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The samples at these positions as one batch, padded on the right."""
        missing = [int(i) for i in indices if int(i) not in self._kept]
        fresh = dict(zip(missing, encode(self._vlm, self._samples.take(missing)), strict=True)) if missing else {}
        rows = [self._kept[int(i)] if int(i) in self._kept else fresh[int(i)] for i in indices]
        for i, item in fresh.items():
            if item.nbytes <= self._room:
                self._kept[i] = item
                self._room -= item.nbytes
        return pad(self._vlm, rows)


def train(vlm: VLM, samples: Samples, knobs: Train, seed: int, work: Path) -> list[dict[str, Any]]:
    """Train the adapter of `vlm` in place; see the module's text.

    Args:
        vlm: with an adapter that takes gradients (`lora.with_adapter`).
        samples: at least one.
        knobs: the `train` section of params.yaml.
        seed: of order and dropout.
        work: a folder for checkpoints. With one in it of the same run, training goes on from there.

    Returns:
        A row per step: step (from 1), loss (nats), learning_rate, gradient_norm before clipping, samples.
    """
    lengths = _lengths(vlm, samples)
    batches_per_epoch = math.ceil(len(samples) / knobs.batch_size)
    steps = knobs.steps or max(1, round(knobs.epochs * batches_per_epoch))
    weights = {name: parameter for name, parameter in vlm.model.named_parameters() if parameter.requires_grad}
    optimiser = torch.optim.AdamW(
        weights.values(), lr=knobs.learning_rate, betas=BETAS, weight_decay=knobs.weight_decay, fused=True
    )
    log = _resume(work, weights, optimiser)
    order = enumerate(_order(lengths, knobs.batch_size, seed, steps), start=1)
    workers = worker_count(vlm.device, min(len(samples), knobs.batch_size) // LEAST_PER_WORKER)

    def run(rank: int) -> None:
        """Every worker takes the same steps, each on its share of the batch; rank 0 tells and keeps."""
        prepared = PreparedSamples(vlm, samples, knobs.cache_mb << 20)
        with (
            torch.random.fork_rng(),
            meeting.gradients(rank) as add_up,
            progress("train", steps, unit="steps", done=len(log), shown=rank == 0) as bar,
        ):
            for step, indices in order:
                if step <= len(log):
                    continue
                torch.manual_seed(_derived(seed, 1, step, rank))
                share = indices[rank::workers]
                loss = torch.zeros(())
                if len(share):
                    batch = prepared.batch(share)
                    loss = sample_nll(*answer_logits(vlm, batch), n=len(batch)).sum() / len(indices)
                    loss.backward()
                loss = add_up(list(weights.values()), loss)
                norm = torch.nn.utils.clip_grad_norm_(weights.values(), knobs.max_grad_norm)
                rate = learning_rate(step, steps, knobs)
                optimiser.param_groups[0]["lr"] = rate
                optimiser.step()
                optimiser.zero_grad()
                log.append(
                    {
                        "step": step,
                        "loss": loss.item(),
                        "learning_rate": rate,
                        "gradient_norm": norm.item(),
                        "samples": len(indices),
                    }
                )
                bar.set_postfix_str(f"loss {log[-1]['loss']:.3f}", refresh=False)
                bar.update(1)
                if rank == 0 and step % knobs.checkpoint_steps == 0 and step < steps:
                    _checkpoint(work, weights, optimiser, log)

    vlm.model.train()
    with MeetingPlace(workers) as meeting:
        run_workers(workers, run)
    vlm.model.eval()
    return log


def learning_rate(step: int, steps: int, knobs: Train) -> float:
    """The rate of step 1..steps: linear from zero over the first `warmup` share, then half a cosine to zero."""
    warmup = math.ceil(knobs.warmup * steps)
    if step <= warmup:
        return knobs.learning_rate * step / warmup
    done = (step - 1 - warmup) / max(1, steps - warmup)
    return knobs.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _lengths(vlm: VLM, samples: Samples) -> NDArray[np.int64]:
    parts = [
        token_lengths(vlm, samples.take(range(start, min(start + LENGTH_CHUNK, len(samples)))))
        for start in range(0, len(samples), LENGTH_CHUNK)
    ]
    return np.concatenate(parts)


def _order(lengths: NDArray[np.int64], batch_size: int, seed: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """The batches of all epochs, one after the other, `steps` in all."""
    step = epoch = 0
    while step < steps:
        for indices in length_buckets(lengths, batch_size, _derived(seed, 0, epoch)):
            if step == steps:
                return
            yield indices
            step += 1
        epoch += 1


def _derived(seed: int, *place: int) -> int:
    """A seed of its own for each place, so that no random state has to be carried from step to step."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _checkpoint(
    work: Path, weights: dict[str, Tensor], optimiser: torch.optim.Optimizer, log: list[dict[str, Any]]
) -> None:
    """The log first: what counts is the step in the weights' file, and the log is cut to it."""
    tensors = {}
    for name, weight in weights.items():
        state = optimiser.state[weight]
        tensors[f"weight/{name}"] = weight.detach().cpu().contiguous()
        tensors[f"mean/{name}"] = state["exp_avg"].cpu().contiguous()
        tensors[f"square/{name}"] = state["exp_avg_sq"].cpu().contiguous()
    write_json(work / STEPS, log)
    metadata = {"step": json.dumps(len(log))}
    write_whole(work / CHECKPOINT, lambda part: save_file(tensors, part, metadata=metadata))


def _resume(work: Path, weights: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> list[dict[str, Any]]:
    if not (work / CHECKPOINT).is_file():
        return []
    with safe_open(work / CHECKPOINT, framework="pt") as file:
        step = json.loads(file.metadata()["step"])
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(f"weight/{name}"))
                optimiser.state[weight] = {
                    "step": torch.tensor(float(step), device=weight.device),
                    "exp_avg": file.get_tensor(f"mean/{name}").to(weight.device),
                    "exp_avg_sq": file.get_tensor(f"square/{name}").to(weight.device),
                }
    return read_json(work / STEPS)[:step]

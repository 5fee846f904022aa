"""Tune a model's adapter on some samples: a plain loop, exact to resume.

AdamW on the LoRA factors, linear warm-up and cosine to zero, gradients clipped; the loss is the mean over the batch of
each sample's mean over its answer tokens. What costs time besides forward and backward is preparing samples, so each is
prepared once and kept as tensors up to `train.cache_mb`; what does not fit is prepared again each time it comes up. A
checkpoint holds the trained weights, AdamW's moments and the step; order and dropout masks are drawn anew from (seed,
epoch) and (seed, step), so a run that was killed ends with the same bytes as one that was not.

What it needs in memory is set by `train.micro_batch` (samples in one forward: a step's gradient is the sum over its
micro-batches) and `train.gradient_checkpointing` (a layer's activations are computed again in the backward pass). On
the shipped model, at a batch of 32, micro-batches of 8 make a step 1.3 times as long, and checkpointing 1.7 times. On a
GPU with bf16 matrix products run in it; the factors, their gradients, AdamW's moments and the loss stay in float32.

Why a loop of our own: on one core and the same batches it runs at 1.2-1.35 times the rate of a bare loop in
transformers, for its loss looks at answer positions only; so does accelerate's around that loss (0.98-1.04 of ours),
transformers' Trainer at 0.85-0.9. accelerate would take the place of `backward` and of clipping, a line for a line; its
processes are launched from outside and average over DDP's own forward, and what it saves is pickled. So workers,
checkpoints and data order would stay ours. `benchmarks/train_rate.py` measures all of them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from adapt_inf.errors import AdaptInfError, ModelError
from adapt_inf.files import read_json, write_json, write_whole
from adapt_inf.models.batches import Batch, Encoded, encode, length_buckets, pad, token_lengths
from adapt_inf.models.likelihood import answer_logits, sample_nll
from adapt_inf.models.precision import autocast
from adapt_inf.models.vlm import VLM
from adapt_inf.parallel import AddUp, MeetingPlace, Team, alone, run_workers, worker_count
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


@dataclass(frozen=True)
class Trained:
    """What a run did, and how fast.

    Attributes:
        log: a row per step: step (from 1), loss (nats), learning_rate, gradient_norm before clipping, samples.
        seconds: that the steps of this call took; those before a kill are not among them, here and below.
        samples: that were trained on, once for each time that one came up.
        tokens: of those samples, without padding.
    """

    log: list[dict[str, Any]]
    seconds: float
    samples: int
    tokens: int


def train(
    vlm: VLM,
    samples: Samples,
    knobs: Train,
    seed: int,
    work: Path,
    team: Team | None = None,
    *,
    sharded: bool = False,
) -> Trained:
    """Train the adapter of `vlm` in place; see the module's text.

    Args:
        vlm: with an adapter that takes gradients (`lora.with_adapter`).
        samples: at least one.
        knobs: the `train` section of params.yaml.
        seed: of order and dropout.
        work: a folder for checkpoints. With one in it of the same run, training goes on from there.
        team: of the processes that a launcher began, all of which call this; without, the cores share the work.
        sharded: whether the team shares the frozen weights, too (`sharding.spread`).

    Raises:
        SampleError: the model cannot read a sample.
        ModelError: the model cannot do with `train.gradient_checkpointing`.
        AdaptInfError: loss or gradient is no number at some step.
    """
    lengths = _lengths(vlm, samples)
    batches_per_epoch = math.ceil(len(samples) / knobs.batch_size)
    steps = knobs.steps or max(1, round(knobs.epochs * batches_per_epoch))
    tuning = Tuning(vlm, knobs, steps)
    tuning.resume(work)
    order = enumerate(batch_order(lengths, knobs.batch_size, seed, steps), start=1)
    at_most = min(len(samples), knobs.batch_size) // LEAST_PER_WORKER
    workers = worker_count(vlm.device, at_most) if team is None else team.count

    def run(rank: int) -> Trained:
        """Every worker takes the same steps, each on its share of the batch; rank 0 tells and keeps."""
        prepared = PreparedSamples(vlm, samples, (knobs.cache_mb << 20) // workers)
        add_up = meeting.gradients(rank)
        started, seen, tokens = time.monotonic(), 0, 0
        with (
            torch.random.fork_rng(),
            progress("train", steps, unit="steps", done=len(tuning.log), shown=rank == 0) as bar,
        ):
            for step, indices in order:
                if step <= len(tuning.log):
                    continue
                torch.manual_seed(_derived(seed, 1, step, rank))
                share = indices[rank::workers]
                size = knobs.micro_batch or knobs.batch_size
                parts = (prepared.batch(share[at : at + size]) for at in range(0, len(share), size))
                # Those that share weights need one another in every pass, also for what is not theirs.
                passes = -(-len(indices[::workers]) // size) - -(-len(share) // size) if sharded else 0
                idle = (prepared.batch(indices[:1]) for _ in range(passes))
                tokens += tuning.step(parts, len(indices), add_up, idle)
                seen += len(indices)
                seconds = time.monotonic() - started
                row = tuning.log[-1]
                bar.set_postfix_str(
                    f"loss {row['loss']:.3f}, lr {row['learning_rate']:.1e}, {seen / seconds:.0f} samples/s",
                    refresh=False,
                )
                bar.update(1)
                if rank == 0 and step % knobs.checkpoint_steps == 0 and step < steps:
                    tuning.keep(work)
        return Trained(tuning.log, time.monotonic() - started, seen, tokens)

    with training_mode(vlm, knobs), MeetingPlace(workers, team) as meeting:
        return run_workers(workers, run) if team is None else run(team.rank)


class Tuning:
    """The adapter's weights, AdamW's state and the log, from step to step and from one process to the next."""

    def __init__(self, vlm: VLM, knobs: Train, steps: int) -> None:
        self._vlm = vlm
        self._knobs = knobs
        self._steps = steps
        self._weights = {name: weight for name, weight in vlm.model.named_parameters() if weight.requires_grad}
        self._optimiser = torch.optim.AdamW(
            self._weights.values(), lr=knobs.learning_rate, betas=BETAS, weight_decay=knobs.weight_decay, fused=True
        )
        self.log: list[dict[str, Any]] = []

    def step(self, parts: Iterable[Batch], count: int, add_up: AddUp = alone, idle: Iterable[Batch] = ()) -> int:
        """Take the next step and put down its row.

        Args:
            parts: this worker's share of the batch in micro-batches; each is freed before the next is made.
            count: samples of the whole batch.
            add_up: sums gradients and (loss, tokens) over the workers.
            idle: to be run for the other workers' sake; they count for nothing.

        Returns:
            Tokens of the whole batch.

        Raises:
            AdaptInfError: loss or gradient is no number; the weights are as the step before left them.
        """
        weights = list(self._weights.values())
        sums = torch.zeros(2, device=self._vlm.device)
        for batch in parts:
            loss = self._loss(batch) / count
            loss.backward()
            sums += torch.stack([loss.detach(), batch.attention_mask.sum()])
        for batch in idle:
            (0.0 * self._loss(batch)).backward()
        loss, tokens = add_up(weights, sums).tolist()
        norm = torch.nn.utils.clip_grad_norm_(weights, self._knobs.max_grad_norm).item()
        step = len(self.log) + 1
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise AdaptInfError(
                f"Training came to a loss of {loss:.3g} and a gradient of {norm:.3g} at step {step} of {self._steps}.",
                f"Lower train.learning_rate, which is {self._knobs.learning_rate:g}; nothing of this run is kept.",
            )
        rate = learning_rate(step, self._steps, self._knobs)
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.log.append({"step": step, "loss": loss, "learning_rate": rate, "gradient_norm": norm, "samples": count})
        return int(tokens)

    def _loss(self, batch: Batch) -> Tensor:
        with autocast(self._vlm.device):
            return sample_nll(*answer_logits(self._vlm, batch), n=len(batch)).sum()

    def keep(self, work: Path) -> None:
        """Write a checkpoint. The log first: what counts is the step in the weights' file; the log is cut to it."""
        tensors = {}
        for name, weight in self._weights.items():
            state = self._optimiser.state[weight]
            tensors[f"weight/{name}"] = weight.detach().cpu().contiguous()
            tensors[f"mean/{name}"] = state["exp_avg"].cpu().contiguous()
            tensors[f"square/{name}"] = state["exp_avg_sq"].cpu().contiguous()
        write_json(work / STEPS, self.log)
        metadata = {"step": json.dumps(len(self.log))}
        write_whole(work / CHECKPOINT, lambda part: save_file(tensors, part, metadata=metadata))

    def resume(self, work: Path) -> None:
        """Go on from the checkpoint in `work`, where there is one."""
        if not (work / CHECKPOINT).is_file():
            return
        with safe_open(work / CHECKPOINT, framework="pt") as file:
            step = json.loads(file.metadata()["step"])
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(file.get_tensor(f"weight/{name}"))
                    self._optimiser.state[weight] = {
                        "step": torch.tensor(float(step), device=weight.device),
                        "exp_avg": file.get_tensor(f"mean/{name}").to(weight.device),
                        "exp_avg_sq": file.get_tensor(f"square/{name}").to(weight.device),
                    }
        self.log = read_json(work / STEPS)[:step]


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


def batch_order(lengths: NDArray[np.int64], batch_size: int, seed: int, steps: int) -> Iterator[NDArray[np.int64]]:
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


@contextmanager
def training_mode(vlm: VLM, knobs: Train) -> Iterator[None]:
    """Inside, dropout is on and, if asked, activations are computed again instead of kept."""
    network = vlm.network
    if knobs.gradient_checkpointing:
        if not network.supports_gradient_checkpointing:
            raise ModelError(
                str(vlm.base), "it cannot compute activations again", "Set train.gradient_checkpointing: false."
            )
        network.gradient_checkpointing_enable({"use_reentrant": False})
    vlm.model.train()
    try:
        yield
    finally:
        vlm.model.eval()
        if knobs.gradient_checkpointing:
            network.gradient_checkpointing_disable()

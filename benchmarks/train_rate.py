"""How fast the train stage's loop is, beside a bare loop in transformers, accelerate's and the Trainer.

    python benchmarks/train_rate.py [--model FOLDER] [--samples N] [--batch N] [--repeat N] [--json FILE]

All train the same LoRA factors by AdamW with clipped gradients on the same batches, samples of the demo's drops:

    bare         model(**batch, labels=labels).loss.backward(), clip, AdamW.step()
    accelerate   the same through Accelerator.prepare, backward and clip_grad_norm_
    trainer      transformers' Trainer as it comes, without saving or logging
    ours         adapt_inf.models.training, as the train stage calls it

in three settings: one core with batches ready (process CPU time), one core with preparing each sample once (process CPU
time), all cores with preparing (wall time): ours in a process a core, the others with a thread a core. The loops take
turns, and each ratio is to the bare loop of the same turn. `accelerate, our loss` and `ours` differ in the loop alone.
The third setting wants an idle machine: the load is printed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from report import finish, machine, spread, table
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.demo.probe_drops import PLANS, Listed, samples_of
from adapt_inf.models.batches import Batch, collate, token_lengths
from adapt_inf.models.likelihood import answer_logits, sample_nll
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.training import BETAS, Tuning, batch_order, train
from adapt_inf.models.vlm import VLM, load_vlm

Batches = Callable[[], Iterator[Batch]]
Loop = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "adapt_inf" / "demo" / "base")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    transformers_logging.set_verbosity_error()
    load = os.getloadavg()[0]
    found = {
        "machine": machine() | {"accelerate": metadata.version("accelerate")},
        "samples": args.samples,
        "batch": args.batch,
        "repeat": args.repeat,
        "load": round(load, 2),
        "settings": measure(args.model, draw(args.samples), args.batch, args.repeat),
    }
    print(f"load {load:.2f} before, {os.getloadavg()[0]:.2f} after")
    for name, rows in found["settings"].items():
        print(f"\n{name}")
        print(table([_shown(loop, row) for loop, row in rows.items()], ["loop", "samples/s", "of bare", "from", "to"]))
    finish("train_rate", found, args.json)


def draw(count: int) -> list[Sample]:
    """The first samples of every drop's training split, in equal parts."""
    parts = [samples_of(name)[0][: -(-count // len(PLANS))] for name in PLANS]
    return [sample for row in zip(*parts, strict=True) for sample in row][:count]


def measure(folder: Path, samples: list[Sample], batch_size: int, repeat: int) -> dict[str, dict[str, Any]]:
    """Setting -> loop -> samples per second and their ratio to the bare loop's of the same turn, as spreads."""
    cores = sorted(os.sched_getaffinity(0))
    vlm = load_vlm(folder)
    steps = -(-len(samples) // batch_size)
    order = list(batch_order(token_lengths(vlm, samples), batch_size, 0, steps))
    knobs = Train(steps=steps, batch_size=batch_size)

    def prepared() -> Iterator[Batch]:
        return (collate(vlm, [samples[int(i)] for i in indices]) for indices in order)

    def ours(knobs: Train = knobs) -> Loop:
        tuned = _fresh(folder)
        return lambda: _train(tuned, samples, knobs)

    held = list(prepared())

    def ready() -> Iterator[Batch]:
        return iter(held)

    found = {}
    os.sched_setaffinity(0, cores[:1])
    torch.set_num_threads(1)
    loops = {
        "bare": bare(_fresh(folder), ready),
        "accelerate": accelerated(_fresh(folder), ready, their_loss),
        "accelerate, our loss": accelerated(_fresh(folder), ready, our_loss),
        "trainer": trainer(_fresh(folder), held, _same),
        "ours": steps_of(_fresh(folder), ready, knobs),
    }
    found["one core, batches ready"] = _take_turns(loops, time.process_time, len(samples), repeat)
    loops = {
        "bare": bare(_fresh(folder), prepared),
        "accelerate, our loss": accelerated(_fresh(folder), prepared, our_loss),
        "trainer": trainer(_fresh(folder), order, lambda rows: collate(vlm, [samples[int(i)] for i in rows])),
        "ours": ours(),
        "ours, micro-batches of 8": ours(replace(knobs, micro_batch=8)),
        "ours, gradient checkpointing": ours(replace(knobs, gradient_checkpointing=True)),
    }
    found["one core, with preparing"] = _take_turns(loops, time.process_time, len(samples), repeat)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    loops = {name: loops[name] for name in ("bare", "accelerate, our loss", "trainer", "ours")}
    found["all cores, with preparing"] = _take_turns(loops, time.perf_counter, len(samples), repeat, len(cores))
    return found


def bare(vlm: VLM, batches: Batches) -> Loop:
    weights, optimiser = _weights(vlm), _adamw(vlm)

    def run() -> None:
        for batch in batches():
            their_loss(vlm, batch).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad()

    return run


def accelerated(vlm: VLM, batches: Batches, loss: Callable[[VLM, Batch], Tensor]) -> Loop:
    accelerator = Accelerator(cpu=True)
    weights = _weights(vlm)
    vlm.model, optimiser = accelerator.prepare(vlm.model, _adamw(vlm))

    def run() -> None:
        for batch in batches():
            with accelerator.accumulate(vlm.model):
                accelerator.backward(loss(vlm, batch))
                accelerator.clip_grad_norm_(weights, 1.0)
                optimiser.step()
                optimiser.zero_grad()

    return run


class _Rows(Dataset[Any]):
    """What the Trainer counts as one sample: a whole batch, so that its batches are the others'."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Any:
        return self._rows[at]


def trainer(vlm: VLM, rows: Sequence[Any], prepare: Callable[[Any], Batch]) -> Loop:
    def join(one: list[Any]) -> dict[str, Tensor]:
        batch = prepare(one[0])
        return batch.inputs | {"labels": _labels(batch)}

    def run() -> None:
        with tempfile.TemporaryDirectory() as work:
            options = TrainingArguments(
                output_dir=work,
                per_device_train_batch_size=1,
                num_train_epochs=1,
                optim="adamw_torch_fused",
                use_cpu=True,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
            )
            loop = Trainer(model=vlm.model, args=options, train_dataset=_Rows(rows), data_collator=join)
            loop.remove_callback(PrinterCallback)
            loop.train()

    return run


def steps_of(vlm: VLM, batches: Batches, knobs: Train) -> Loop:
    def run() -> None:
        tuning = Tuning(vlm, knobs, knobs.steps or 0)
        for batch in batches():
            tuning.step([batch], len(batch))

    return run


def their_loss(vlm: VLM, batch: Batch) -> Tensor:
    return vlm.model(**batch.inputs, labels=_labels(batch)).loss


def our_loss(vlm: VLM, batch: Batch) -> Tensor:
    return sample_nll(*answer_logits(vlm, batch), n=len(batch)).mean()


def _train(vlm: VLM, samples: list[Sample], knobs: Train) -> None:
    with tempfile.TemporaryDirectory() as work:
        train(vlm, Listed(samples), knobs, 0, Path(work))


def _same(batch: Batch) -> Batch:
    return batch


def _fresh(folder: Path) -> VLM:
    vlm = with_adapter(load_vlm(folder), Train(), seed=0)
    vlm.model.train()
    return vlm


def _weights(vlm: VLM) -> list[Tensor]:
    return [weight for weight in vlm.model.parameters() if weight.requires_grad]


def _adamw(vlm: VLM) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_weights(vlm), lr=Train().learning_rate, betas=BETAS, weight_decay=0.0, fused=True)


def _labels(batch: Batch) -> Tensor:
    return batch.input_ids.masked_fill(~batch.answers, -100)


def _take_turns(
    loops: dict[str, Loop], clock: Callable[[], float], samples: int, repeat: int, threads: int = 1
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(repeat + 1):
        for name, loop in loops.items():
            torch.set_num_threads(threads)  # ours leaves one
            start = clock()
            loop()
            if turn:  # the first warms up
                seconds[name].append(clock() - start)
    return {
        name: {
            "samples_per_second": spread([samples / each for each in own]),
            "of_bare": spread([theirs / each for each, theirs in zip(own, seconds["bare"], strict=True)]),
        }
        for name, own in seconds.items()
    }


def _shown(loop: str, row: dict[str, Any]) -> dict[str, Any]:
    rate, ratio = row["samples_per_second"], row["of_bare"]
    return {"loop": loop, "samples/s": rate, "of bare": ratio, "from": ratio["min"], "to": ratio["max"]}


if __name__ == "__main__":
    main()

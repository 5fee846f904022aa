"""What the sketch and the scores cost, relative to a plain forward and backward over the same samples.

    python benchmarks/sketch_cost.py [--model FOLDER] [--samples N] [--batch N] [--repeat N] [--released N] [--json F]

Samples are those of the demo's drops. Two models: `full`, without an adapter as in a lineage's first round (the middle
layer's weights are sketched), and `lora`, with one as later (its factors). Passes, each over all samples in buckets of
like length:

    plain                      forward of the whole model, logits everywhere, backward to every weight
    plain, adapter alone       the same, backward to the LoRA factors alone, as in training
    sketch + free signals      gradient sketch, nll, EL2N, entropy, GraNd
    sketch of 8,192, 16,384    the same with longer sketches
    without image              the forward that Image Grounding adds: for a blank image, or with image tokens dropped
    sketch + all five scores   the two, and the scores from their signals
    released                   batches of one, dense projection to 8192 (released_sketch.py); on N samples only

Process CPU time on one thread. Passes take turns, and each ratio is to the plain pass of the same turn: on batches that
are ready (decoded, tokenised, blanked), and with preparing them on both sides.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from released_sketch import gradients
from released_sketch import sketch as released_sketch
from report import finish, machine, spread, table
from shipped import BASE, adapted_model, bare_model, samples
from transformers.utils import logging as transformers_logging

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import Batch, Encoded, collate, length_buckets, token_lengths
from adapt_inf.models.vlm import VLM
from adapt_inf.selection.scores.registry import resolve
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.grounding import Without, WithoutImage
from adapt_inf.sketching.signals import AnswerPass
from adapt_inf.stages.sketch import sketch_samples

SCORES = ("perplexity", "el2n", "entropy", "grand", "image_grounding")
WITHOUT: tuple[Without, ...] = ("blank", "drop")
MODELS = {"full": bare_model, "lora": adapted_model}
SKETCHES = "sketch + "
SKETCH = f"{SKETCHES}free signals"
WIDER = (8192, 16_384)
READY, PREPARING = "batches ready", "with preparing"

Pass = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--samples", type=int, default=384)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--released", type=int, default=16, help="samples for the released way; 0: leave it out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    drawn = samples(args.samples)
    found: dict[str, Any] = {
        "machine": machine(),
        **{k: v for k, v in vars(args).items() if k not in ("json", "model")},
    }
    for name, load in MODELS.items():
        vlm = load(args.model)
        found[name] = about(vlm, drawn)
        print(f"\n{name}: {found[name]['coordinates']:,} coordinates, {found[name]['mean_tokens']} tokens a sample")
        for setting, passes in ((READY, ready(vlm, drawn, args.batch)), (PREPARING, preparing(vlm, drawn, args.batch))):
            found[name][setting] = compare(passes, len(drawn), args.repeat)
            show(setting, found[name][setting])
        if args.released:
            found[name]["released"] = released(vlm, drawn, args.released, found[name][READY])
            show("released way", found[name]["released"])
            for what, times in found[name]["released"]["released"]["times_ours"].items():
                print(f"released / {what}: {times:.0f}")
    finish("sketch_cost", found, args.json)


def about(vlm: VLM, drawn: Sequence[Sample]) -> dict[str, Any]:
    plan = Sketcher(vlm).plan
    tokens = [len(collate(vlm, [sample]).input_ids[0]) for sample in drawn[::16]]
    return {
        "layers": list(plan.layers),
        "coordinates": plan.coordinates,
        "mean_tokens": round(float(np.mean(tokens)), 1),
    }


def ready(vlm: VLM, drawn: Sequence[Sample], size: int) -> dict[str, Pass]:
    """The passes on batches that are there; `without image` pads its own, from samples that are encoded."""
    batches = [collate(vlm, [drawn[int(i)] for i in rows]) for rows in length_buckets(token_lengths(vlm, drawn), size)]
    sketcher, answers = Sketcher(vlm), AnswerPass(vlm)
    pictured = [sample for sample in drawn if sample.images]
    pass_of = {without: WithoutImage(vlm, answers, without, size) for without in WITHOUT}
    encoded: dict[Without, list[Encoded]] = {
        without: [item for item in each.encode(pictured) if item is not None] for without, each in pass_of.items()
    }

    def each(run: Callable[[Batch], object]) -> None:
        for batch in batches:
            run(batch)

    def without_image(without: Without) -> None:
        pass_of[without].nll(encoded[without])

    wider = {f"sketch of {dim:,}": partial(each, Sketcher(vlm, dim=dim)) for dim in WIDER}
    return _passes(vlm, len(drawn), each, partial(each, sketcher), without_image) | wider


def preparing(vlm: VLM, drawn: Sequence[Sample], size: int) -> dict[str, Pass]:
    """The passes as the stages run them: from samples with their encoded pictures, each time anew."""
    sketcher, answers = Sketcher(vlm), AnswerPass(vlm)
    pass_of = {without: WithoutImage(vlm, answers, without, size) for without in WITHOUT}

    def each(run: Callable[[Batch], object]) -> None:
        for rows in length_buckets(token_lengths(vlm, drawn), size):
            run(collate(vlm, [drawn[int(i)] for i in rows]))

    def without_image(without: Without) -> None:
        pass_of[without](drawn)

    return _passes(vlm, len(drawn), each, partial(sketch_samples, vlm, sketcher, drawn, size), without_image)


def _passes(
    vlm: VLM,
    count: int,
    over: Callable[[Callable[[Batch], object]], object],
    sketch: Pass,
    without_image: Callable[[Without], None],
) -> dict[str, Pass]:
    passes: dict[str, Pass] = {"plain": partial(over, plain(vlm))}
    if vlm.adapted:
        passes["plain, adapter alone"] = partial(over, plain(vlm, adapter_alone=True))
    passes[SKETCH] = sketch
    for without in WITHOUT:
        passes[f"without image: {without}"] = partial(without_image, without)
    passes["scores from signals"] = partial(scores, count)
    return passes


def scores(count: int) -> None:
    rng = np.random.default_rng(0)
    for score in resolve(list(SCORES)):
        score.compute({name: rng.random(count) for name in score.needs}, rng)


def plain(vlm: VLM, adapter_alone: bool = False) -> Callable[[Batch], None]:
    """A forward of the whole model and a backward to every weight, or to the adapter's alone."""

    def run(batch: Batch) -> None:
        for name, parameter in vlm.model.named_parameters():
            parameter.requires_grad_(not adapter_alone or "lora_" in name)
        labels = batch.input_ids.masked_fill(~batch.answers, -100)
        vlm.model(**batch.inputs, labels=labels, use_cache=False).loss.backward()
        vlm.model.zero_grad(set_to_none=True)
        vlm.model.requires_grad_(False)

    return run


def compare(passes: dict[str, Pass], count: int, repeat: int) -> dict[str, Any]:
    """Pass -> samples per second, and its cost beside the plain pass of the same turn. The first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(repeat + 1):
        for name, run in passes.items():
            spent = cpu(run)
            if turn:
                seconds[name].append(spent)
    for without in WITHOUT:
        parts = [seconds[name] for name in (SKETCH, f"without image: {without}", "scores from signals")]
        seconds[f"{SKETCHES}all five scores: {without}"] = [sum(turn) for turn in zip(*parts, strict=True)]
    return {
        name: {
            "samples_per_second": spread([count / each for each in own]),
            "of_plain": spread([each / theirs for each, theirs in zip(own, seconds["plain"], strict=True)]),
        }
        for name, own in seconds.items()
        if name != "scores from signals"
    }


def released(vlm: VLM, drawn: Sequence[Sample], count: int, ours: dict[str, Any]) -> dict[str, Any]:
    """The released way on `count` samples spread over all, per sample beside ours and the plain pass; batches ready."""
    maps = Sketcher(vlm).plan.modules
    singles = [collate(vlm, [sample]) for sample in drawn[:: max(1, len(drawn) // count)][:count]]
    spent = {
        "released": cpu(lambda: released_sketch(vlm, maps, singles)),
        "released, gradients alone": cpu(lambda: list(gradients(vlm, maps, singles))),
    }
    vlm.model.requires_grad_(False)
    known = {name: row["samples_per_second"]["median"] for name, row in ours.items()}
    return {
        name: {
            "samples_per_second": spread([len(singles) / seconds]),
            "of_plain": spread([known["plain"] * seconds / len(singles)]),
            "times_ours": {
                what: round(rate * seconds / len(singles), 1)
                for what, rate in known.items()
                if what.startswith(SKETCHES)
            },
        }
        for name, seconds in spent.items()
    }


def cpu(run: Pass) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def show(setting: str, rows: dict[str, Any]) -> None:
    shown = [
        {
            setting: name,
            "samples/s": row["samples_per_second"],
            "of plain": row["of_plain"],
            "from": row["of_plain"]["min"],
            "to": row["of_plain"]["max"],
        }
        for name, row in rows.items()
    ]
    print("\n" + table(shown, [setting, "samples/s", "of plain", "from", "to"]))


if __name__ == "__main__":
    main()

"""What the sketch and score passes cost, relative to a plain forward and backward of the same batches.

    python benchmarks/sketch_cost.py [--model FOLDER] [--samples N] [--batch N] [--repeat N] [--json FILE]

Prints a table of process CPU time (best of the repeats, one thread), samples per second and the ratio to `plain`: a
forward of the whole model and a backward to every weight, on the same length-bucketed batches. `plain, adapter alone`
goes back to the LoRA factors only, as training does. Samples are random pictures with short questions: an eighth text
only, an eighth with two pictures. A bare model is measured as in a lineage's first round (full weights of the middle
layer), then with LoRA factors of rank 16 as later.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers.utils import logging as transformers_logging

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import Batch, collate, length_buckets, token_lengths
from adapt_inf.models.vlm import VLM, load_vlm
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.grounding import Without, nll_without_image
from adapt_inf.sketching.signals import AnswerPass
from adapt_inf.stages.sketch import sketch_samples

QUESTIONS = ("What colour is it?", "How many are there?", "Which one is second: left, right or above?", "Is it red?")
ANSWERS = ("red", "two of them", "yes, it is green", "no")
PIXELS = 64
WITHOUT: tuple[Without, ...] = ("blank", "drop")


def draw(count: int, seed: int = 0) -> list[Sample]:
    """`count` samples, the same for the same seed."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        pictures = tuple(_png(rng) for _ in range({7: 0, 3: 2}.get(i % 8, 1)))
        question, answer = QUESTIONS[rng.integers(4)], ANSWERS[rng.integers(4)]
        parts = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": question}]
        messages = [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        samples.append(Sample(str(i), pictures, messages, "benchmark", "exact_match", (answer,)))
    return samples


def _png(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    tiles = rng.integers(0, 255, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(tiles.repeat(PIXELS // 8, 0).repeat(PIXELS // 8, 1)).save(stream, "PNG")
    return stream.getvalue()


def with_adapter(folder: Path) -> VLM:
    vlm = load_vlm(folder)
    maps = [name for name, module in vlm.decoder().named_modules() if isinstance(module, torch.nn.Linear)]
    prefix = next(name for name, module in vlm.model.named_modules() if module is vlm.decoder())
    config = LoraConfig(r=16, lora_alpha=32, target_modules=[f"{prefix}.{name}" for name in maps])
    return VLM(get_peft_model(vlm.model, config).eval(), vlm.processor, vlm.device, True, vlm.base)


def plain_pass(vlm: VLM, adapter_alone: bool = False) -> Callable[[Batch], None]:
    """A forward of the whole model and a backward to every weight, or to the adapter's alone."""
    for name, parameter in vlm.model.named_parameters():
        parameter.requires_grad_(not adapter_alone or "lora_" in name)

    def run(batch: Batch) -> None:
        labels = batch.input_ids.masked_fill(~batch.answers, -100)
        vlm.model(**batch.inputs, labels=labels, use_cache=False).loss.backward()
        vlm.model.zero_grad(set_to_none=True)

    return run


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Process CPU time of `work`: the best of `repeat`, after one run to warm up."""
    work()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(vlm: VLM, samples: list[Sample], batch_size: int, repeat: int) -> dict[str, float]:
    """Seconds per pass over all samples; the first ones on batches that are ready."""
    buckets = length_buckets(token_lengths(vlm, samples), batch_size)
    batches = [collate(vlm, [samples[int(i)] for i in rows]) for rows in buckets]

    def over(run: Callable[[Batch], object]) -> float:
        return seconds(lambda: [run(batch) for batch in batches], repeat)

    cost = {"plain": over(plain_pass(vlm))}
    if vlm.adapted:
        cost["plain, adapter alone"] = over(plain_pass(vlm, adapter_alone=True))
    sketcher, answers = Sketcher(vlm), AnswerPass(vlm)  # freeze the model
    cost["signals alone"] = over(answers)
    cost["sketch + signals"] = over(sketcher)
    cost["batches (images, tokens)"] = seconds(
        lambda: [collate(vlm, [samples[int(i)] for i in rows]) for rows in buckets], repeat
    )
    cost["sketch stage"] = seconds(lambda: sketch_samples(vlm, sketcher, samples, batch_size), repeat)
    for without in WITHOUT:
        work = partial(nll_without_image, vlm, answers, samples, without, batch_size)
        cost[f"without image: {without}"] = seconds(work, repeat)
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "adapt_inf" / "demo" / "base")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    samples = draw(args.samples)
    found: dict[str, Any] = {}
    for name, vlm in (("full", load_vlm(args.model)), ("lora", with_adapter(args.model))):
        tokens = float(np.mean(token_lengths(vlm, samples)))
        cost = measure(vlm, samples, args.batch, args.repeat)
        rows = {
            what: {"samples_per_second": round(len(samples) / spent, 1), "ratio": round(spent / cost["plain"], 3)}
            for what, spent in cost.items()
        }
        found[name] = {"mean_tokens": round(tokens, 1), "coordinates": Sketcher(vlm).plan.coordinates, "passes": rows}
        print(
            f"\n{name}: {found[name]['coordinates']} coordinates, {tokens:.1f} tokens a sample without the template's"
        )
        print(f"{'pass':28}{'samples/s':>10}{'ratio':>8}")
        for what, row in rows.items():
            print(f"{what:28}{row['samples_per_second']:>10.0f}{row['ratio']:>8.2f}")
    print("\n" + json.dumps(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Is every drop learnable by one round? `python -m adapt_inf.demo.probe_drops [--drops shapes pairs] [--steps 450]`.

For each drop by itself: a LoRA adapter on the base model, trained on the drop's training split less a part, and the
accuracy of each skill on that part. Near-duplicates and questions on one picture stay on one side. The evaluation
splits are never opened, so drops and settings may be chosen by what this prints. About a minute a drop.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from adapt_inf.config import Train
from adapt_inf.creation import shipped_model
from adapt_inf.data.samples import Sample
from adapt_inf.demo.compose import DROPS, PLANS, carve
from adapt_inf.demo.drops.plan import Named
from adapt_inf.demo.drops.writing import chat, png
from adapt_inf.evaluation.metrics import METRICS
from adapt_inf.models.generation import answer
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.training import train
from adapt_inf.models.vlm import VLM, load_vlm

LONGEST_ANSWER = 12  # tokens


class Listed:
    """Samples by position, in memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def take(self, indices: Sequence[int] | NDArray[Any]) -> list[Sample]:
        return [self._samples[int(i)] for i in indices]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(shipped_model()))
    parser.add_argument("--drops", nargs="+", choices=DROPS, default=DROPS)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--samples", type=int, default=None, help="train on at most so many")
    options = parser.parse_args()
    knobs = Train(steps=options.steps, learning_rate=options.rate, batch_size=options.batch)
    for name in options.drops:
        print(json.dumps({"drop": name, **probe(options.model, name, knobs, options.samples)}), flush=True)


def probe(model: Path, name: str, knobs: Train, most: int | None = None) -> dict[str, Any]:
    """Train on most of a drop's training split; accuracy and the majority answer's share, a skill, on the rest."""
    train_on, judge_by = samples_of(name)
    vlm = with_adapter(load_vlm(model), knobs, seed=0)
    before = accuracy(vlm, judge_by)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        train(vlm, Listed(train_on[:most]), knobs, 0, Path(work))
    skills = {
        skill: {"n": len(own), "before": before[skill], "after": after, "majority": majority(own)}
        for skill, after in accuracy(vlm, judge_by).items()
        if (own := [sample for sample in judge_by if sample.skill == skill])
    }
    return {"main": PLANS[name].skill, "seconds": round(time.monotonic() - started), "skills": skills}


def samples_of(name: str, seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """A drop's training split in two, see `compose.carve`: what to train on, what to judge by."""
    parts = carve(PLANS[name], seed)
    return [as_sample(name, named) for named in parts["train"]], [as_sample(name, named) for named in parts["eval"]]


def as_sample(drop: str, named: Named) -> Sample:
    """What ingest makes of a drawn item."""
    item = named.item
    metric = PLANS[drop].metrics.get(item.skill, "exact_match")
    images = tuple(png(image) for image in item.images)
    return Sample(f"{drop}/{named.id}", images, chat(item), item.skill, metric, (item.answer,))


def accuracy(vlm: VLM, samples: Sequence[Sample]) -> dict[str, float]:
    """Skill -> mean of its metric."""
    scores = defaultdict(list)
    for sample, said in zip(samples, answer(vlm, samples, LONGEST_ANSWER, 128), strict=True):
        scores[sample.skill].append(METRICS[sample.metric](said, sample.answers))
    return {skill: round(sum(values) / len(values), 3) for skill, values in sorted(scores.items())}


def majority(samples: Sequence[Sample]) -> float:
    """Share of the commonest answer."""
    ((_, most),) = Counter(sample.answers[0] for sample in samples).most_common(1)
    return round(most / len(samples), 3)


if __name__ == "__main__":
    main()

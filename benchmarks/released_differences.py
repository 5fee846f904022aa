"""What the released code does otherwise, and what that changes: one small measurement for each difference.

    python benchmarks/released_differences.py [--model FOLDER] [--samples N] [--json FILE]

The first half is selection on made-up scores, where the right answer is known; the second runs the shipped base model
over samples of the demo's drops, one at a time as the released code does (released_sketch.py). What the released code
does is rebuilt from its description, the three functions of selection at the end of this file.
docs/method.md cites the figures.
"""

from __future__ import annotations

import argparse
import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from released_sketch import gradients, logits_and_labels, projector, zero_order
from report import finish, machine, table
from shipped import BASE, bare_model, samples
from sketch_fidelity import agreement, as_stored, unit
from transformers.utils import logging as transformers_logging

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import collate
from adapt_inf.models.vlm import VLM
from adapt_inf.selection.budgets import cluster_budgets
from adapt_inf.selection.clusters import assign, fit_centroids
from adapt_inf.selection.coverage import coverage_sample
from adapt_inf.selection.experts import Experts, choose_experts
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.grounding import WithoutImage
from adapt_inf.sketching.signals import AnswerPass
from adapt_inf.stages.sketch import sketch_samples

Row = dict[str, Any]
DIM = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    vlm, drawn = bare_model(args.model), samples(args.samples)
    rows = [*histograms(), *coverage(), *budgets(), *on_a_model(vlm, drawn)]
    print(table(rows, ["what", "case", "released", "here"]))
    finish("released_differences", {"machine": machine(), "samples": len(drawn), "rows": rows}, args.json)


def row(what: str, case: str, released: object, here: object) -> Row:
    return {"what": what, "case": case, "released": released, "here": here}


def histograms(n: int = 10_000) -> list[Row]:
    """Entropy of the same normal scores in other units, and of a score that says nothing."""
    values = np.random.default_rng(0).normal(size=n)

    def ours(scores: NDArray[np.float64]) -> float:
        return round(float(experts_of(scores[:, None], np.zeros(n, np.int64), 1).entropies[0, 0]), 2)

    found = [
        row(
            "histogram entropy, bits",
            f"normal, std {std:g}",
            round(entropy_bits(std * values), 2),
            ours(std * values),
        )
        for std in (0.1, 1, 100)
    ]
    with np.errstate(invalid="ignore"):
        found.append(row("", "constant score", entropy_bits(np.ones(n)), ours(np.ones(n))))
        pair = np.stack([np.ones(n), values], axis=1)
        names = ("constant", "normal")
        chosen = int(np.argmax([entropy_bits(column) for column in pair.T]))
    winner = int(experts_of(pair, np.zeros(n, np.int64), 1).winner[0])
    return [*found, row("expert chosen", "constant or normal score", names[chosen], names[winner])]


def experts_of(scores: NDArray[np.float64], cluster: NDArray[np.int64], k: int) -> Experts:
    """Ours, of (n, s) scores."""
    order, sizes = np.argsort(cluster, kind="stable"), np.bincount(cluster, minlength=k)
    return choose_experts([np.ascontiguousarray(column) for column in scores.T], order, sizes)


def coverage(n: int = 2000, budget: int = 1000) -> list[Row]:
    """How many come back for a budget, over shapes of a score."""
    rng = np.random.default_rng(0)
    shapes = {
        "normal": rng.normal(size=n),
        "skewed (gamma 2)": rng.gamma(2, size=n),
        "heavy tails (t 3)": rng.standard_t(3, size=n),
        "normal, rounded to tenths": np.round(rng.normal(size=n), 1),
        "constant": np.ones(n),
    }
    cases = [(f"{name}, {budget:,} of {n:,}", values, budget) for name, values in shapes.items()]
    return [
        row(
            "samples drawn",
            case,
            len(coverage_indices(values, wanted, seed=0)),
            len(coverage_sample(values, np.array([n]), np.array([wanted]), np.random.default_rng(0)).positions),
        )
        for case, values, wanted in [*cases, (f"normal, all of {n:,}", shapes["normal"], n)]
    ]


def budgets() -> list[Row]:
    """Sum of the clusters' budgets."""
    sizes = np.array([7, 30, 60, 61, 900, 2000, 4000])
    return [
        row("sum of cluster budgets", f"{total:,} over {len(sizes)} clusters", *sums)
        for total in (1000, 3000)
        for sums in [(int(np.sum(budgets_of_clusters(sizes, total))), int(cluster_budgets(sizes, total).sum()))]
    ]


def on_a_model(vlm: VLM, drawn: Sequence[Sample]) -> list[Row]:
    """Scores and gradients of the same samples by both ways."""
    sketcher = Sketcher(vlm)
    ours = sketch_samples(vlm, sketcher, drawn, 32)
    nll, entropy = ours.signals["nll"].to_numpy(), ours.signals["entropy"].to_numpy()
    blank = WithoutImage(vlm, AnswerPass(vlm), "blank", 32)(drawn)
    log_ppl, everywhere, answer_share = _released_scores(vlm, drawn)
    pictured = np.isfinite(blank)
    grounding = blank - nll
    ratio = np.exp(blank) / np.exp(log_ppl)
    singles = [collate(vlm, [sample]) for sample in drawn]
    maps = sketcher.plan.modules
    exact = torch.stack(list(gradients(vlm, maps, singles)))
    cosines = unit((exact @ exact.T).double())
    noise = torch.stack(list(zero_order(vlm, maps, singles)))
    projected = projector(exact.shape[1], DIM).project(noise, model_id=0)
    halved = exact.half().float()
    norms = ours.signals["grand"].to_numpy()
    layer = str(sketcher.plan.layers[0])
    named = _by_number(vlm, layer)
    scores = np.stack([nll, ours.signals["el2n"], entropy, norms], axis=1)
    found = [
        *experts_that_change(ours.features["gradient"], scores),
        row("log perplexity, mean", "log of the mean of exps; mean", log_ppl.mean(), nll.mean()),
        row("", "largest difference, nats", float((log_ppl - nll).max()), 0.0),
        row("", "same order (Spearman)", same_order(log_ppl, nll), 1.0),
        row(
            "entropy, mean nats",
            f"all positions; answer ({answer_share:.0%} of them)",
            everywhere.mean(),
            entropy.mean(),
        ),
        row("", "same order (Spearman)", same_order(everywhere, entropy), 1.0),
        row("image grounding", "same order (Spearman)", same_order(ratio[pictured], grounding[pictured]), 1.0),
        row(
            "",
            "picture helps, share of samples",
            float((ratio[pictured] > 1).mean()),
            float((grounding[pictured] > 0).mean()),
        ),
        row(
            "", f"text-only samples with a value, of {int((~pictured).sum())}", "none: lists of unequal length", "null"
        ),
        row("zero-order gradients", "r of cosines with the exact", agreement(cosines, as_stored(noise))["r"], 1.0),
        row("", "10 nearest shared", agreement(cosines, as_stored(noise))["10-NN"], 1.0),
        row(
            "",
            f"r after the projection to {DIM:,}",
            agreement(cosines, as_stored(projected))["r"],
            agreement(cosines, as_stored(torch.from_numpy(ours.features["gradient"])))["r"],
        ),
        row(
            "gradients cast to fp16",
            "entries that become zero",
            float(((halved == 0) & (exact != 0)).float().mean()),
            0.0,
        ),
        row(
            "sketches not normalised",
            "norm of the 95th percentile / 5th",
            float(np.quantile(norms, 0.95) / np.quantile(norms, 0.05)),
            1.0,
        ),
        row("layer by number in name", "weights of the vision tower in it", named["vision"], 0),
        row(
            "uniform draw",
            "distinct of 1,000 from 2,000",
            len(np.unique(np.random.default_rng(0).choice(2000, 1000))),
            1000,
        ),
    ]
    return [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()} for line in found
    ]


def experts_that_change(sketches: NDArray[np.float32], scores: NDArray[np.float64], k: int = 8) -> list[Row]:
    """In how many of k clusters the expert changes when GraNd, the last column, comes out ten times smaller."""
    unit_rows = sketches / np.maximum(np.linalg.norm(sketches, axis=1, keepdims=True), 1e-12)
    label, _ = assign(unit_rows, fit_centroids(unit_rows, k, seed=0))
    scaled = scores * np.array([1.0] * (scores.shape[1] - 1) + [0.1])

    def released(values: NDArray[np.float64]) -> NDArray[np.int64]:
        members = [values[label == c] for c in range(k)]
        return np.array([np.argmax([entropy_bits(column) for column in own.T]) for own in members])

    def changed(one: NDArray[np.int64], other: NDArray[np.int64]) -> str:
        return f"{int((one != other).sum())} of {k}"

    ours = experts_of(scores, label, k).winner, experts_of(scaled, label, k).winner
    return [
        row(
            "expert chosen",
            "clusters that change it when GraNd is a tenth",
            changed(released(scores), released(scaled)),
            changed(*ours),
        )
    ]


def same_order(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's correlation."""
    return float(np.corrcoef(one.argsort().argsort(), other.argsort().argsort())[0, 1])


def _released_scores(vlm: VLM, drawn: Sequence[Sample]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """log of the mean of per-token exps, mean entropy over all positions, and the answers' share of positions."""
    log_ppl, entropy, answers, positions = [], [], 0, 0
    with torch.no_grad():
        for sample in drawn:
            logits, labels, answer = logits_and_labels(vlm, collate(vlm, [sample]))
            nll = torch.nn.functional.cross_entropy(logits[answer], labels[answer], reduction="none").double()
            log_ppl.append(float(nll.exp().mean().log()))
            log_p = torch.log_softmax(logits, dim=-1)
            entropy.append(float(-(log_p.exp() * log_p).sum(-1).mean()))
            answers, positions = answers + int(answer.sum()), positions + len(answer)
    return np.array(log_ppl), np.array(entropy), answers / positions


def _by_number(vlm: VLM, layer: str) -> dict[str, int]:
    """Weights whose name has `layer` as its first number, by what they belong to."""
    counts = {"text": 0, "vision": 0}
    decoder = {id(parameter) for parameter in vlm.decoder().parameters()}
    for name, parameter in vlm.model.named_parameters():
        numbers = [part for part in name.split(".") if part.isdigit()]
        if numbers and numbers[0] == layer:
            counts["text" if id(parameter) in decoder else "vision"] += parameter.numel()
    return counts


def entropy_bits(values: NDArray[np.float64], bins: int = 50) -> float:
    """Of standardised values, counted between edges that are +-4 times the raw standard deviation."""
    spread = values.std()
    edges = np.linspace(-4 * spread, 4 * spread, bins)
    with np.errstate(invalid="ignore"):
        place = np.searchsorted(edges, (values - values.mean()) / spread, side="left")  # bins are open on the left
    counts = np.bincount(place, minlength=bins)[1:bins] if spread else np.zeros(bins - 1)
    with np.errstate(invalid="ignore"):
        share = counts / counts.sum()
    return float(-np.sum(share * np.log2(np.where(share == 0, 1, share)))) + 0.0


def coverage_indices(values: NDArray[np.float64], budget: int, seed: int, strata: int = 50) -> list[int]:
    """From the top stratum down, each a quota rounded up from what is left; nothing from outside the middle 90%."""
    rng = random.Random(seed)
    ordered = np.sort(values)
    low, high = ordered[int(0.05 * len(values))], ordered[int(0.95 * len(values))]
    drawn: list[int] = []
    left_over, quota, top = budget, math.ceil(budget / strata), high
    for stratum in range(1, strata + 1):
        bottom = top - (high - low) / strata
        members = np.flatnonzero((values > bottom) & (values <= top)).tolist()
        if len(members) < quota:
            drawn += members
            if stratum < strata:
                quota = math.ceil((left_over - len(members)) / (strata - stratum))
                left_over -= len(members)
        else:
            drawn += rng.sample(members, quota)
            left_over -= quota
        top = bottom
    return drawn


def budgets_of_clusters(sizes: NDArray[np.int64], total: int) -> list[int]:
    """Equal shares rounded up, smallest cluster first; what one lacks is spread over the rest, rounded up again."""
    left = len(sizes)
    share = math.ceil(total / left)
    given = {}
    for cluster in np.argsort(sizes).tolist():
        left -= 1
        given[cluster] = min(int(sizes[cluster]), share)
        if sizes[cluster] < share and left:
            share += math.ceil((share - sizes[cluster]) / left)
    return [given[cluster] for cluster in range(len(sizes))]


if __name__ == "__main__":
    main()

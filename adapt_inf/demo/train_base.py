"""Train the base model that ships: `python -m adapt_inf.demo.train_base --out DIR`.

Recipe, in two parts. First the vision tower learns to tell 58 things, 48 flags, ten digits and ten silhouettes apart
with a linear head a kind (a tower is pre-trained on pictures before anyone asks it questions); then the whole model
answers the base tasks, pictures and questions composed afresh in every batch, so nothing is seen twice. The loss is the
mean over the answer's tokens, then over the samples. Flags are only ever classified: no country's name is an answer to
a picture here.

AdamW, cosine to zero after a warm-up, gradients clipped at 1; every number is a constant below.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from adapt_inf.demo import pictures
from adapt_inf.demo.pictures import Bytes, Generator, Split, load_assets
from adapt_inf.demo.questions import BASE_TASKS, CONTINENTS, PHRASES, Item, base_item, vocabulary
from adapt_inf.demo.tiny import MEAN, STD, make_model, make_processor

TOWER_STEPS = 2000
TOWER_BATCH = 64
TOWER_RATE = 1.5e-3
STEPS = 11_000
BATCH = 32
RATE = 2e-3
WARMUP = 200
BETAS = (0.9, 0.98)
DECAY = 0.01
LOG_EVERY = 100
SAVE_EVERY = 1000
VALIDATION = 400  # items a task, drawn as training draws them but never trained on

Classifier = Callable[[Generator], tuple[Bytes, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--tower-steps", type=int, default=TOWER_STEPS)
    parser.add_argument("--start", type=Path, help="go on with the model that an earlier run saved here; no tower part")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    log = Log(options.out / "train_log.jsonl")
    if options.start:
        processor = LlavaProcessor.from_pretrained(options.start)
        model = LlavaForConditionalGeneration.from_pretrained(options.start, dtype=torch.float32)
        log.write(part="start", seed=options.seed, rate=options.rate, steps=options.steps)
    else:
        processor = make_processor(tokenizer_texts())
        model = make_model(processor, options.seed)
        log.write(parameters=sum(parameter.numel() for parameter in model.parameters()))
        train_tower(model, options.tower_steps, rng, log)
    train_answers(model, processor, options.steps, options.rate, rng, log, options.out)


class Log:
    """A line of JSON an entry, printed too, with the seconds since the start."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.monotonic()
        path.unlink(missing_ok=True)

    def write(self, **entry: object) -> None:
        line = json.dumps({"seconds": round(time.monotonic() - self.started), **entry})
        print(line, flush=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def tokenizer_texts() -> list[str]:
    """What the tokens are learned from: every word of the continuum, alone and after a space, and questions."""
    words = [text for word in vocabulary() for text in (word, f" {word}")] * 20
    rng = np.random.default_rng(0)
    questions = [base_item("train", rng).question for _ in range(2000)]
    shapes = [question for question, _, _ in load_assets().shape_questions["train"][:2000]]
    return words + questions + shapes + [*PHRASES, *CONTINENTS] * 40


# --- the tower --------------------------------------------------------------------------------------------------------


def classifiers() -> dict[str, tuple[int, Classifier]]:
    """Kind -> (classes, how to draw a picture and its class)."""
    assets = load_assets()

    def kind(classes: int, draw: Callable[[int, Split, Generator], Bytes]) -> tuple[int, Classifier]:
        def one(rng: Generator) -> tuple[Bytes, int]:
            label = int(rng.integers(classes))
            return draw(label, "train", rng), label

        return classes, one

    return {
        "concept": kind(len(assets.concepts), pictures.concept),
        "flag": kind(len(assets.countries), pictures.flag),
        "digit": kind(pictures.DIGIT_VALUES, pictures.digit),
        "silhouette": kind(len(assets.index["silhouettes"]), pictures.silhouette),
    }


def train_tower(model: LlavaForConditionalGeneration, steps: int, rng: Generator, log: Log) -> None:
    """Teach the vision tower to classify by the mean of its patches; a head a kind, thrown away afterwards."""
    tower = model.model.vision_tower
    kinds = classifiers()
    width = model.config.vision_config.hidden_size
    heads = nn.ModuleDict({name: nn.Linear(width, classes) for name, (classes, _) in kinds.items()})
    optimiser, schedule = optimiser_for([*tower.parameters(), *heads.parameters()], TOWER_RATE, steps)
    tower.train()
    share = TOWER_BATCH // len(kinds)
    right: dict[str, list[float]] = defaultdict(list)
    for step in range(1, steps + 1):
        drawn = {name: [one(rng) for _ in range(share)] for name, (_, one) in kinds.items()}
        images = pixel_values([image for pairs in drawn.values() for image, _ in pairs])
        patches = tower(images).last_hidden_state[:, 1:].mean(1)
        loss = torch.zeros(())
        for part, (name, pairs) in zip(patches.split(share), drawn.items(), strict=True):
            labels = torch.tensor([label for _, label in pairs])
            scores = heads[name](part)
            loss = loss + cross_entropy(scores, labels)
            right[name].append((scores.argmax(1) == labels).float().mean().item())
        take_step(loss / len(kinds), optimiser, schedule)
        if step % (LOG_EVERY * 5) == 0:
            accuracy = {name: round(float(np.mean(values)), 3) for name, values in right.items()}
            log.write(part="tower", step=step, loss=round(loss.item() / len(kinds), 3), accuracy=accuracy)
            right.clear()


# --- the answers ------------------------------------------------------------------------------------------------------


def train_answers(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    steps: int,
    rate: float,
    rng: Generator,
    log: Log,
    out: Path,
) -> None:
    """Train every weight on the base tasks; a model that can be used is saved now and then."""
    optimiser, schedule = optimiser_for(list(model.parameters()), rate, steps)
    model.train()
    losses, started = [], time.monotonic()
    for step in range(1, steps + 1):
        loss = answer_loss(model, processor, [base_item("train", rng) for _ in range(BATCH)])
        take_step(loss, optimiser, schedule)
        losses.append(loss.item())
        if step % LOG_EVERY == 0:
            speed = round(LOG_EVERY * BATCH / (time.monotonic() - started))
            log.write(part="answers", step=step, loss=round(float(np.mean(losses)), 4), samples_per_second=speed)
            losses, started = [], time.monotonic()
        if step % SAVE_EVERY == 0 or step == steps:
            save(model, processor, out)
            log.write(part="validation", step=step, accuracy=validate(model, processor))
            started = time.monotonic()


def answer_loss(model: LlavaForConditionalGeneration, processor: LlavaProcessor, items: Sequence[Item]) -> torch.Tensor:
    """Mean over the items of the mean over their answer tokens of -log p."""
    ids, answers, mask = encode(processor, items)
    images = [image for item in items for image in item.images]
    values = pixel_values(images) if images else None
    hidden = model.model(input_ids=ids, attention_mask=mask, pixel_values=values).last_hidden_state
    rows, places = answers.nonzero(as_tuple=True)
    logits = model.lm_head(hidden[rows, places - 1])
    losses = cross_entropy(logits, ids[rows, places], reduction="none")
    return (losses / answers.sum(1)[rows]).sum() / len(items)


def encode(processor: LlavaProcessor, items: Sequence[Item]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, which of them belong to answers, the attention mask, (items, longest); as the chat template has it."""
    tokenizer = processor.tokenizer
    user, assistant, image = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>", "<image>"])
    patches = (pictures.PIXELS // processor.patch_size) ** 2
    rows = []
    for item in items:
        question = tokenizer(item.question, add_special_tokens=False)["input_ids"]
        answer = [*tokenizer(item.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append(([user, *[image] * (patches * len(item.images)), *question, assistant], answer))
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    answers, mask = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        answers[row, len(prompt) : end] = True
        mask[row, :end] = 1
    return ids, answers, mask


def pixel_values(images: Sequence[Bytes]) -> torch.Tensor:
    """(n, 3, 64, 64) as the processor makes them from images of that size."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return (stacked.float() / 255 - MEAN) / STD


def optimiser_for(
    parameters: list[nn.Parameter], rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=BETAS, weight_decay=DECAY)

    def factor(step: int) -> float:
        return min(step / WARMUP, 0.5 * (1 + np.cos(np.pi * step / steps)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def take_step(
    loss: torch.Tensor, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
) -> None:
    loss.backward()
    for group in optimiser.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimiser.step()
    schedule.step()
    optimiser.zero_grad(set_to_none=True)


@torch.no_grad()
def validate(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> dict[str, float]:
    """Share of fresh items of each task whose every answer token is the likeliest one."""
    model.eval()
    rng = np.random.default_rng(12345)
    accuracy = {}
    for task in BASE_TASKS:
        items = [task("train", rng) for _ in range(VALIDATION)]
        right = 0
        for start in range(0, len(items), 100):
            part = items[start : start + 100]
            ids, answers, mask = encode(processor, part)
            images = [image for item in part for image in item.images]
            values = pixel_values(images) if images else None
            hidden = model.model(input_ids=ids, attention_mask=mask, pixel_values=values).last_hidden_state
            rows, places = answers.nonzero(as_tuple=True)
            wrong = model.lm_head(hidden[rows, places - 1]).argmax(-1) != ids[rows, places]
            right += len(part) - len(rows[wrong].unique())
        accuracy[task.__name__] = round(right / len(items), 3)
    model.train()
    return accuracy


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, out: Path) -> None:
    """As any Hugging Face folder, weights in half precision."""
    weights = {name: value.detach().half() for name, value in model.state_dict().items()}
    model.save_pretrained(out, state_dict=weights)
    processor.save_pretrained(out)


if __name__ == "__main__":
    main()

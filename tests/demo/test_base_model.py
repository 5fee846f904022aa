"""The base model that ships: small, loaded like any other, masks right, and it answers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from adapt_inf.creation import shipped_model
from adapt_inf.demo import questions
from adapt_inf.demo.compose import PLANS
from adapt_inf.demo.drops.plan import Named, draw
from adapt_inf.demo.probe_drops import accuracy, as_sample
from adapt_inf.models.vlm import load_vlm

FOLDER = Path(shipped_model())
MOST_PARAMETERS = 3_000_000
MOST_BYTES = 8_000_000


@cache
def loaded() -> tuple[Any, Any]:
    return AutoProcessor.from_pretrained(FOLDER), AutoModelForImageTextToText.from_pretrained(FOLDER)


def test_it_is_small() -> None:
    _, model = loaded()
    assert sum(parameter.numel() for parameter in model.parameters()) <= MOST_PARAMETERS
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES
    assert not list(FOLDER.glob("*.bin"))


def test_its_recipe_and_log_lie_beside_it() -> None:
    assert (FOLDER / "README.md").is_file()
    assert (FOLDER / "NOTICE").is_file()
    assert (FOLDER / "train_log.jsonl").is_file()


def test_the_mask_covers_the_answer_and_its_end() -> None:
    processor, _ = loaded()
    picture = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    chat = [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "banana"}]},
    ]
    batch = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )
    mask = np.asarray(batch["assistant_masks"])[0].astype(bool)
    assert processor.tokenizer.decode(batch["input_ids"][0][mask]) == "banana" + processor.tokenizer.eos_token


def test_every_word_of_the_continuum_survives_its_tokens() -> None:
    processor, _ = loaded()
    for word in questions.vocabulary():
        ids = processor.tokenizer(word, add_special_tokens=False)["input_ids"]
        assert processor.tokenizer.decode(ids) == word


def test_it_names_what_it_was_trained_on_and_not_what_comes() -> None:
    vlm = load_vlm(FOLDER)
    rng = np.random.default_rng(99)
    known = [as_sample("languages", Named(str(i), questions.name("eval", rng))) for i in range(60)]
    assert accuracy(vlm, known)["name"] >= 0.5
    coming = [as_sample("geography", named) for named in draw(PLANS["geography"], 5)["eval"]]
    assert accuracy(vlm, coming)["flag_country"] <= 0.2

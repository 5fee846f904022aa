"""Answers are greedy, in the order of the samples, and do not depend on what shares their batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from model_samples import make_sample
from peft import LoraConfig, get_peft_model

from adapt_inf.data.samples import Sample
from adapt_inf.errors import SampleError
from adapt_inf.models.batches import collate
from adapt_inf.models.generation import answer, as_base
from adapt_inf.models.vlm import VLM, load_vlm


def by_hand(vlm: VLM, sample: Sample, max_new_tokens: int) -> str:
    """Append the likeliest token until the end, with a whole pass for each and no cache."""
    batch = collate(vlm, [sample], generation=True)
    ids, said = batch.input_ids, []
    extras = {name: value for name, value in batch.inputs.items() if name not in ("input_ids", "attention_mask")}
    for _ in range(max_new_tokens):
        token = int(vlm.model(input_ids=ids, **extras).logits[0, -1].argmax())
        if token == vlm.tokenizer.eos_token_id:
            break
        said.append(token)
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return vlm.tokenizer.decode(said, skip_special_tokens=True).strip()


def test_answers_are_greedy_alone_and_together(vlm: VLM, samples: list[Sample]) -> None:
    expected = [by_hand(vlm, sample, 6) for sample in samples]
    assert len(set(expected)) > 1
    assert answer(vlm, samples, 6, batch_size=1) == expected
    assert answer(vlm, samples, 6, batch_size=3) == expected
    assert answer(vlm, samples[::-1], 6, batch_size=5) == expected[::-1]


def test_progress_counts_every_sample(vlm: VLM, samples: list[Sample]) -> None:
    done: list[int] = []
    answer(vlm, samples, 1, batch_size=2, advance=done.append)
    assert sum(done) == len(samples)
    assert answer(vlm, [], 1, batch_size=2) == []


def test_as_base_answers_as_the_base_does(vlm: VLM, samples: list[Sample]) -> None:
    other = load_vlm(vlm.base)
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = VLM(get_peft_model(other.model, config).eval(), other.processor, other.device, True, other.base)
    plain = answer(vlm, samples, 6, batch_size=5)
    changed = answer(adapted, samples, 6, batch_size=5)
    with as_base(adapted) as base:
        assert answer(base, samples, 6, batch_size=5) == plain
    assert changed != plain
    assert answer(adapted, samples, 6, batch_size=5) == changed
    with as_base(vlm) as same:
        assert same is vlm


def test_the_prompt_of_a_sample_without_an_answer_is_the_whole_chat(vlm: VLM) -> None:
    asked = make_sample("asked", 0, [("What is two plus three?", "five")])
    open_end = Sample("drop/open", (), asked.messages[:1], "s", "exact_match", ("five",))
    assert answer(vlm, [asked], 4, 1) == answer(vlm, [open_end], 4, 1)


def test_a_sample_that_cannot_be_read_is_answered_with_nothing(vlm: VLM, samples: list[Sample]) -> None:
    broken = replace(samples[0], sample_id="drop/broken", images=(b"no picture",))
    refused: list[SampleError] = []
    done: list[int] = []
    found = answer(vlm, [samples[0], broken, samples[2]], 4, 2, advance=done.append, refuse=refused.append)
    assert found == [*answer(vlm, samples[:1], 4, 1), "", *answer(vlm, samples[2:3], 4, 1)]
    assert [error.sample_id for error in refused] == ["drop/broken"]
    assert sum(done) == 3

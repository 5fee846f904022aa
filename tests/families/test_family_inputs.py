"""What a family's model is given: what its own processor gives it, answers marked, whatever shares the batch."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from family_models import Family
from model_samples import make_sample
from PIL import Image

from adapt_inf.data.samples import Sample, text_of
from adapt_inf.errors import SampleError
from adapt_inf.models.batches import collate, encode, encode_readable, token_lengths
from adapt_inf.models.vlm import VLM

LOGITS = {"atol": 2e-5, "rtol": 1e-4}


def own_inputs(vlm: VLM, sample: Sample) -> Any:
    """The prompt as the family's own `apply_chat_template` makes it."""
    pictures = iter(Image.open(io.BytesIO(data)) for data in sample.images)
    chat = [
        {
            "role": turn["role"],
            "content": [
                {"type": "image", "image": next(pictures)} if part["type"] == "image" else part
                for part in turn["content"]
            ],
        }
        for turn in sample.messages[:-1]
    ]
    return vlm.processor.apply_chat_template(
        [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def logits(vlm: VLM, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = vlm.model(**inputs).logits
    return found


def test_prompts_are_those_of_the_familys_own_processor(vlm: VLM, samples: list[Sample]) -> None:
    for sample in samples:
        ours, own = collate(vlm, [sample], generation=True).inputs, own_inputs(vlm, sample)
        own.pop("labels", None)
        assert ours.keys() == own.keys()
        assert torch.equal(ours["input_ids"], own["input_ids"])
        torch.testing.assert_close(logits(vlm, ours), logits(vlm, own), **LOGITS)


def test_what_the_assistant_says_is_marked_with_its_end(family: Family, vlm: VLM, samples: list[Sample]) -> None:
    ends = set(vlm.network.generation_config.eos_token_id)
    for sample, item in zip(samples, encode(vlm, samples), strict=True):
        said = item.ids[item.answers]
        assert int(said[-1]) in ends
        turns = [text_of(turn) for turn in sample.messages if turn["role"] == "assistant"]
        spoken = vlm.tokenizer.decode(said, skip_special_tokens=True)
        assert spoken.split() == " ".join(turns if family.turns else turns[-1:]).split() or "".join(turns) == spoken


def test_a_samples_logits_do_not_depend_on_its_batch(vlm: VLM, samples: list[Sample]) -> None:
    together = logits(vlm, collate(vlm, samples).inputs)
    for i, sample in enumerate(samples):
        alone = logits(vlm, collate(vlm, [sample]).inputs)[0]
        torch.testing.assert_close(together[i, : len(alone)], alone, **LOGITS)


def test_left_padding_does_not_matter_to_what_is_generated(vlm: VLM, samples: list[Sample]) -> None:
    def generated(batch: list[Sample]) -> torch.Tensor:
        inputs = collate(vlm, batch, generation=True).inputs
        found = vlm.model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        return found.logits[0]

    together = generated(samples)
    for i, sample in enumerate(samples):
        torch.testing.assert_close(together[i], generated([sample])[0], **LOGITS)


def test_pictures_matter(vlm: VLM, samples: list[Sample]) -> None:
    """Or the tests of what a picture does would show nothing."""
    own = collate(vlm, samples[:1])
    other = own.inputs | {"pixel_values": own.inputs["pixel_values"].flip(-1)}
    assert (logits(vlm, own.inputs)[0, -1] - logits(vlm, other)[0, -1]).abs().max() > 1e-3


def test_texts_alone(family: Family, vlm: VLM, text: Sample) -> None:
    if family.text_only:
        batch = collate(vlm, [text, text])
        assert "pixel_values" not in batch.inputs
        torch.testing.assert_close(*logits(vlm, batch.inputs), **LOGITS)
    else:
        (refused,) = encode_readable(vlm, [text])
        assert isinstance(refused, SampleError)
        assert refused.message.startswith("sample drop/text: the model's processor refuses it (`images` are expected")
        with pytest.raises(SampleError, match="drop/text"):
            collate(vlm, [text])


def test_an_unreadable_sample_leaves_the_others(vlm: VLM, samples: list[Sample]) -> None:
    broken = Sample("drop/broken", (b"",) * len(samples[0].images), *list(vars(samples[0]).values())[2:])
    found = encode_readable(vlm, [samples[0], broken, samples[1]])
    assert [isinstance(item, SampleError) for item in found] == [False, True, False]


def test_lengths_stand_about_in_order(vlm: VLM, samples: list[Sample]) -> None:
    true = [len(item.ids) for item in encode(vlm, samples)]
    told = token_lengths(vlm, samples)
    assert told[-1] > told[0]
    assert true[-1] > true[0]


def test_a_samples_own_text_cannot_pose_as_a_picture_or_an_end(vlm: VLM, samples: list[Sample]) -> None:
    special = sorted(token.content for token in vlm.tokenizer.added_tokens_decoder.values() if token.special)
    assert vlm.processor.image_token in special
    ids = vlm.tokenizer.convert_tokens_to_ids(special)
    posing = "".join(special)
    forged, plain = (make_sample("posing", 1, [(text, text)]) for text in (f"What {posing}?", "What?"))
    counts = []
    for sample in (replace(forged, images=samples[0].images), replace(plain, images=samples[0].images)):
        (item,) = encode(vlm, [sample])
        counts.append([int((item.ids == token).sum()) for token in ids])
    assert counts[0] == counts[1]

"""Batches hold what samples say: padding does not matter, answers are marked, pictures belong to their sample."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from miniature import IMAGE_TOKENS
from model_samples import make_sample

from adapt_inf.data.samples import Sample
from adapt_inf.errors import SampleError
from adapt_inf.models import batches
from adapt_inf.models.batches import Encoded, collate, encode, encode_readable, length_buckets, pad, token_lengths
from adapt_inf.models.vlm import VLM


def said(vlm: VLM, batch: batches.Batch, row: int) -> str:
    return vlm.tokenizer.decode(batch.input_ids[row][batch.answers[row]])


def test_a_samples_logits_do_not_depend_on_its_batch(vlm: VLM, samples: list[Sample]) -> None:
    together = vlm.model(**collate(vlm, samples).inputs).logits
    for i, sample in enumerate(samples):
        alone = vlm.model(**collate(vlm, [sample]).inputs).logits[0]
        torch.testing.assert_close(together[i, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_left_padding_does_not_matter_to_the_next_token(vlm: VLM, samples: list[Sample]) -> None:
    together = vlm.model(**collate(vlm, samples, generation=True).inputs).logits[:, -1]
    for i, sample in enumerate(samples):
        alone = vlm.model(**collate(vlm, [sample], generation=True).inputs).logits[0, -1]
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-4)


def test_answers_are_marked_with_their_end_of_turn(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples)
    assert said(vlm, batch, 0) == "red</s>"
    assert said(vlm, batch, 1) == "the second</s>"
    assert said(vlm, batch, 2) == "five</s>"
    assert said(vlm, batch, 3) == "blue</s>yes, left of the square</s>"
    assert not batch.answers[batch.attention_mask == 0].any()


def test_pictures_stand_with_their_samples(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples)
    counts = [len(sample.images) for sample in samples]
    assert batch.has_image.tolist() == [count > 0 for count in counts]
    assert batch.pixel_values is not None
    assert len(batch.pixel_values) == sum(counts)
    assert (batch.input_ids == vlm.processor.image_token_id).sum(1).tolist() == [IMAGE_TOKENS * n for n in counts]
    alone = [collate(vlm, [sample]).pixel_values for sample in samples]
    assert torch.equal(batch.pixel_values, torch.cat([pixels for pixels in alone if pixels is not None]))


def test_a_batch_of_texts_has_no_pixels(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, [samples[2], samples[2]])
    assert set(batch.inputs) == {"input_ids", "attention_mask"}
    assert vlm.model(**batch.inputs).logits.shape[0] == 2


def test_dropped_pictures_leave_the_rest_of_the_text(vlm: VLM, samples: list[Sample]) -> None:
    own, dropped = collate(vlm, samples[:1]), collate(vlm, samples[:1], images="drop")
    kept = own.input_ids[0][own.input_ids[0] != vlm.processor.image_token_id]
    assert torch.equal(dropped.input_ids[0], kept)
    assert dropped.pixel_values is None
    assert not dropped.has_image.any()
    assert said(vlm, dropped, 0) == "red</s>"


def test_a_prompt_ends_where_the_model_goes_on(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples, generation=True)
    texts = [vlm.tokenizer.decode(row) for row in batch.input_ids]
    assert all(text.endswith("<|assistant|>") for text in texts)
    assert "blue</s>" in texts[3]
    assert "left of" not in texts[3]
    assert batch.attention_mask[:, -1].all()
    assert not batch.answers.any()


def test_encoding_in_chunks_or_one_by_one_is_the_same(
    vlm: VLM, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode(vlm, samples)
    monkeypatch.setattr(batches, "ENCODE_CHUNK", 1)
    for one, other in zip(whole, encode(vlm, samples), strict=True):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.answers, other.answers)
        assert one.extras.keys() == other.extras.keys()
        assert all(torch.equal(one.extras[name], other.extras[name]) for name in one.extras)
        assert one.n_images == other.n_images


def test_as_many_pictures_as_samples_still_go_to_the_right_ones(vlm: VLM, samples: list[Sample]) -> None:
    """Two pictures and none: the first dimension alone would not tell whose they are."""
    encoded = encode(vlm, [samples[1], samples[2]])
    assert len(encoded[0].extras["pixel_values"]) == 2
    assert encoded[1].extras == {}


def test_pictures_of_unequal_size_are_joined_with_zeros(vlm: VLM) -> None:
    """The layout of LLaVA-NeXT and Pixtral: the largest picture sets the size, the rest is zero."""
    ids = torch.tensor([5, 6])
    answers = torch.tensor([False, True])
    sizes = [(1, 3, 4, 6), (2, 3, 5, 2)]
    rows = [Encoded(ids, answers, extras={"pixel_values": torch.ones(size)}, n_images=size[0]) for size in sizes]
    joined = pad(vlm, rows).inputs["pixel_values"]
    assert joined.shape == (3, 3, 5, 6)
    assert joined.sum() == sum(np.prod(size) for size in sizes)


def test_lengths_stand_in_the_order_of_true_lengths(vlm: VLM) -> None:
    samples = [make_sample(f"n{n}", n % 3, [("word " * n, "yes")]) for n in range(1, 40, 4)]
    true = np.array([len(item.ids) for item in encode(vlm, samples)])
    assert (np.argsort(token_lengths(vlm, samples)) == np.argsort(true)).all()


def test_samples_that_cannot_be_read_stand_as_reasons_among_the_others(vlm: VLM, samples: list[Sample]) -> None:
    broken = replace(samples[0], sample_id="drop/broken", images=(samples[0].images[0][:60],))
    long = make_sample("endless", 0, [("word " * 300, "yes")])
    mute = replace(samples[2], sample_id="drop/mute", messages=samples[2].messages[:1])
    found = encode_readable(vlm, [samples[0], broken, long, mute, samples[1]])
    reasons = [str(item).splitlines()[0] for item in found if isinstance(item, SampleError)]
    assert reasons[0].startswith("sample drop/broken: the image cannot be decoded")
    assert re.fullmatch(r"sample drop/endless: \d,?\d+ tokens, of which the model takes 256\.", reasons[1])
    assert reasons[2] == "sample drop/mute: the model's chat template shows no assistant turn of it."
    for place, item in zip((0, 4), encode(vlm, samples[:2]), strict=True):
        kept = found[place]
        assert isinstance(kept, Encoded)
        assert torch.equal(kept.ids, item.ids)
        assert torch.equal(kept.extras["pixel_values"], item.extras["pixel_values"])
    with pytest.raises(SampleError, match="sample drop/broken: "):
        encode(vlm, [samples[0], broken, mute])


def test_a_bad_first_picture_does_not_keep_lengths_from_being_told(vlm: VLM, samples: list[Sample]) -> None:
    broken = replace(samples[0], images=(b"no picture",))
    assert (token_lengths(vlm, [broken, *samples])[1:] == token_lengths(vlm, samples)).all()


def test_a_processor_that_takes_one_sample_at_a_time_is_found_out(vlm: VLM, samples: list[Sample]) -> None:
    class OneAtATime(type(vlm.processor)):  # type: ignore[misc]
        calls = 0

        def __call__(self, text: list[str], **options: Any) -> Any:
            type(self).calls += 1
            if len(text) > 1:
                raise ValueError("inhomogeneous shape")
            return super().__call__(text=text, **options)

    own = vlm.processor
    processor = OneAtATime(
        image_processor=own.image_processor,
        tokenizer=own.tokenizer,
        patch_size=own.patch_size,
        vision_feature_select_strategy=own.vision_feature_select_strategy,
        num_additional_image_tokens=own.num_additional_image_tokens,
        chat_template=own.chat_template,
    )
    single = replace(vlm, processor=processor)
    for _ in range(2):
        for one, other in zip(encode(single, samples), encode(vlm, samples), strict=True):
            assert torch.equal(one.ids, other.ids)
    assert OneAtATime.calls == 1 + 2 * len(samples)  # the second time it is not tried


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 40), st.none() | st.integers(0, 9))
def test_buckets_hold_everything_once(lengths: list[int], size: int, seed: int | None) -> None:
    buckets = length_buckets(np.array(lengths), size, seed)
    assert sorted(np.concatenate(buckets).tolist()) == list(range(len(lengths)))
    assert all(len(bucket) <= size for bucket in buckets)
    assert len(buckets) == -(-len(lengths) // size)
    again = length_buckets(np.array(lengths), size, seed)
    assert all((one == other).all() for one, other in zip(buckets, again, strict=True))


def test_seeds_give_other_epochs() -> None:
    lengths = np.arange(100)
    first, second = (np.concatenate(length_buckets(lengths, 8, seed)).tolist() for seed in (0, 1))
    assert first != second


def test_buckets_save_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 640)
    for seed, most in ((None, 1.1), (3, 1.2)):
        padded = sum(len(bucket) * lengths[bucket].max() for bucket in length_buckets(lengths, 16, seed))
        assert padded < most * lengths.sum()


def test_blank_pictures_change_nothing_but_the_pixels(vlm: VLM, samples: list[Sample]) -> None:
    for own, blank in zip(encode(vlm, samples), encode(vlm, samples, images="blank"), strict=True):
        assert torch.equal(own.ids, blank.ids)
        assert torch.equal(own.answers, blank.answers)
        assert own.extras.keys() == blank.extras.keys()
        for name, value in own.extras.items():
            assert value.shape == blank.extras[name].shape
            assert not torch.equal(value, blank.extras[name])

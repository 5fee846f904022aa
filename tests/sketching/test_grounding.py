"""The answer without its image, against plain forwards of one sample at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import collate
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.grounding import WithoutImage, reused_image_features
from adapt_inf.sketching.signals import AnswerPass


def slow_nll(vlm: VLM, sample: Sample, without: Literal["blank", "drop"]) -> float:
    if not sample.images:
        return float("nan")
    if without == "drop":
        turns = [{**m, "content": [p for p in m["content"] if p["type"] != "image"]} for m in sample.messages]
        batch = collate(vlm, [replace(sample, images=(), messages=turns)])
    else:
        batch = collate(vlm, [sample])
        batch.inputs["pixel_values"] = torch.zeros_like(batch.inputs["pixel_values"])
    with torch.no_grad():
        logits = vlm.model(**batch.inputs).logits[0, :-1]
    told = batch.answers[0, 1:]
    return float(torch.nn.functional.cross_entropy(logits[told], batch.input_ids[0, 1:][told]))


def with_late_image(sample: Sample) -> Sample:
    """The same question with its pictures behind the words, so that no two prompts begin alike."""
    first = sample.messages[0]
    turned = {**first, "content": first["content"][::-1]}
    return replace(sample, messages=[turned, *sample.messages[1:]])


def with_second_picture_later(sample: Sample) -> Sample:
    """One more turn about the same picture, shown again after the first answer."""
    again = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And this one?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    return replace(sample, images=sample.images + sample.images[:1], messages=sample.messages + again)


@pytest.fixture
def mixed(samples: list[Sample]) -> list[Sample]:
    """Pictures before the question, behind it, and after the first answer; none, one and two of them."""
    pictured = [sample for sample in samples if sample.images]
    return [*samples, with_late_image(pictured[0]), with_second_picture_later(pictured[1]), *samples[:4]]


def without_image(vlm: VLM, without: Literal["blank", "drop"] = "blank", batch_size: int = 5) -> WithoutImage:
    return WithoutImage(vlm, AnswerPass(vlm), without, batch_size)


@pytest.mark.parametrize("without", ["blank", "drop"])
@pytest.mark.parametrize("which", ["vlm", "adapted"])
def test_is_the_forward_of_a_sample_without_its_image(
    which: str, without: Literal["blank", "drop"], mixed: list[Sample], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    run = without_image(model, without)
    ours = run(mixed)
    slow = [slow_nll(model, sample, without) for sample in mixed]
    np.testing.assert_allclose(ours, slow, rtol=1e-5)
    assert np.isnan(ours).sum() == sum(not sample.images for sample in mixed) > 0
    assert run.shares_prefix is (True if without == "blank" else None)


def test_a_shared_prefix_runs_once(vlm: VLM, samples: list[Sample]) -> None:
    """Of samples whose prompt begins with their picture, only the words after it go through the decoder."""
    alike = [sample for sample in samples if len(sample.images) == 1]
    run = without_image(vlm)
    run(alike)  # tries it
    lengths: list[int] = []
    handle = vlm.decoder().layers[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    shared = run(alike)
    handle.remove()
    whole = [len(item.ids) for item in run.encode(alike) if item is not None]
    assert lengths[0] < min(whole)  # the prefix
    assert sum(lengths) < max(whole) * len(lengths) / 2
    run.shares_prefix = False
    np.testing.assert_allclose(shared, run(alike), rtol=1e-5)


def test_a_model_whose_prompt_sees_what_follows_runs_as_a_whole(vlm: VLM, samples: list[Sample]) -> None:
    """Attention both ways: keys of the prefix depend on the question, so they may not be shared."""

    def both_ways(number: int, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> object:
        length, cache = args[0].shape[1], kwargs.get("past_key_values")
        seen = length + (cache.get_seq_length(number) if cache is not None else 0)
        return args, kwargs | {"attention_mask": torch.zeros(len(args[0]), 1, length, seen)}

    for number, layer in enumerate(vlm.decoder().layers):
        layer.register_forward_pre_hook(lambda _, *given, n=number: both_ways(n, *given), with_kwargs=True)
    run = without_image(vlm, batch_size=1)  # a batch of one has no padding, which these hooks would let in
    ours = run(samples)
    assert run.shares_prefix is False
    np.testing.assert_allclose(ours, [slow_nll(vlm, sample, "blank") for sample in samples], rtol=1e-5)


def test_a_model_whose_cache_fails_runs_as_a_whole(
    vlm: VLM, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("no such cache")

    expected = without_image(vlm)(samples)
    monkeypatch.setattr(DynamicCache, "batch_repeat_interleave", refused)
    run = without_image(vlm)
    np.testing.assert_allclose(run(samples), expected, rtol=1e-5)
    assert run.shares_prefix is False


def test_the_vision_tower_runs_for_prefixes_and_odd_ones_alone(vlm: VLM, mixed: list[Sample]) -> None:
    runs: list[int] = []
    run = without_image(vlm)
    run(mixed)
    handle = vlm.network.base_model.vision_tower.register_forward_hook(lambda _, args, __: runs.append(len(args[0])))
    run(mixed)
    dropped = len(runs)
    without_image(vlm, "drop")(mixed)
    handle.remove()
    assert dropped == len(runs)
    assert len(runs) == 3  # a prefix of one picture, a prefix of two, and once for all that stand alone
    assert sum(runs) == 4  # pictures


def test_the_model_sees_its_images_again_afterwards(vlm: VLM, samples: list[Sample]) -> None:
    batch, answers = collate(vlm, samples[:4]), AnswerPass(vlm)
    before = answers(batch).nll
    WithoutImage(vlm, answers, "blank", 4)(samples)
    assert torch.equal(answers(batch).nll, before)


def test_features_that_need_more_than_pixels_come_from_the_tower(vlm: VLM) -> None:
    """A family that passes sizes along (here by hand) has them respected: its tower runs for each."""
    network = vlm.network.base_model
    pixels = torch.zeros(2, 3, 32, 32)
    runs = []
    handle = network.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    with reused_image_features(vlm), torch.no_grad():
        plain = network.get_image_features(pixels, vision_feature_layer=-1, vision_feature_select_strategy="default")
        network.get_image_features(pixels, vision_feature_layer=-1, vision_feature_select_strategy="default")
        assert len(runs) == 1
        flag = torch.ones(1)
        sized = network.get_image_features(
            pixels, vision_feature_layer=-1, vision_feature_select_strategy="default", unused=flag
        )
    handle.remove()
    assert len(runs) == 2
    torch.testing.assert_close(torch.stack(list(sized.pooler_output)), torch.stack(list(plain.pooler_output)))


def test_a_sample_that_cannot_be_read_has_none(vlm: VLM, samples: list[Sample]) -> None:
    pictured = [sample for sample in samples if sample.images]
    long = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "colour " * 300}]}]
    bad = replace(pictured[0], images=pictured[0].images[:1], messages=long + pictured[0].messages[1:2])
    ours = without_image(vlm)([pictured[1], bad, pictured[2]])
    assert np.isnan(ours).tolist() == [False, True, False]


def test_only_text(vlm: VLM, samples: list[Sample]) -> None:
    text = [sample for sample in samples if not sample.images]
    assert np.isnan(without_image(vlm)(text)).all()
    assert without_image(vlm)([]).shape == (0,)

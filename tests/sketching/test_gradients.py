"""Batched per-sample gradients against torch.autograd.grad, one sample at a time, on the same parameters."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from adapt_inf.data.samples import Sample
from adapt_inf.errors import ModelError
from adapt_inf.models.batches import collate
from adapt_inf.models.structure import decoder_layers
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching import signals
from adapt_inf.sketching.gradients import Sketcher, choose_layers, make_plan
from adapt_inf.sketching.projections import CountSketch


def slow_gradient(vlm: VLM, sample: Sample, weights: list[torch.Tensor]) -> torch.Tensor:
    """(D,) gradient of one sample's mean nll, by a plain forward of the whole model and autograd on its logits."""
    batch = collate(vlm, [sample])
    vlm.model.requires_grad_(True)
    logits = vlm.model(**batch.inputs).logits[0, :-1]
    told = batch.answers[0, 1:]
    loss = torch.nn.functional.cross_entropy(logits[told], batch.input_ids[0, 1:][told])
    parts = torch.autograd.grad(loss, weights)
    vlm.model.requires_grad_(False)
    return torch.cat([part.flatten() for part in parts])


def exact(vlm: VLM, samples: list[Sample], sketcher: Sketcher) -> torch.Tensor:
    weights = [module.weight for module in sketcher.plan.modules]
    return torch.stack([slow_gradient(vlm, sample, weights) for sample in samples])


def assert_sketches(vlm: VLM, samples: list[Sample], **options: Any) -> Sketcher:
    """Sketches and norms of one batch are those of the gradients that autograd gives sample by sample."""
    sketcher = Sketcher(vlm, dim=4096, seed=3, **options)
    result = sketcher(collate(vlm, samples))
    slow = exact(vlm, samples, sketcher)
    assert slow.shape[1] == sketcher.plan.coordinates
    torch.testing.assert_close(result.grand.float(), slow.norm(dim=1), rtol=1e-4, atol=1e-6)
    expected = CountSketch(slow.shape[1], 4096, 3)(slow)
    torch.testing.assert_close(result.sketches, expected, rtol=1e-3, atol=1e-5 * float(slow.abs().max()) + 1e-6)
    return sketcher


@pytest.mark.parametrize("layers", ["middle", "last", [0], [1, 3]])
def test_full_weights(vlm: VLM, samples: list[Sample], layers: Any) -> None:
    sketcher = assert_sketches(vlm, samples, layers=layers)
    assert sketcher.plan.params == "full"
    assert len(sketcher.plan.modules) == 7 * len(sketcher.plan.layers)


@pytest.mark.parametrize("layers", ["middle", [0, 2]])
def test_lora_factors(adapted: VLM, samples: list[Sample], layers: Any) -> None:
    sketcher = assert_sketches(adapted, samples, layers=layers)
    assert sketcher.plan.params == "lora"
    assert len(sketcher.plan.modules) == 8 * len(sketcher.plan.layers)  # A and B of four maps
    assert {module.weight.shape[0] for module in sketcher.plan.modules[::2]} == {3}


def test_full_weights_under_an_adapter(adapted: VLM, samples: list[Sample]) -> None:
    sketcher = assert_sketches(adapted, samples[:6], params="full")
    assert sketcher.plan.names == Sketcher(adapted, params="full").plan.names
    assert "2.self_attn.q_proj" in sketcher.plan.names
    assert not any("lora" in name for name in sketcher.plan.names)


def test_a_batch_of_text_alone(vlm: VLM, samples: list[Sample]) -> None:
    assert_sketches(vlm, [sample for sample in samples if not sample.images])


def test_other_samples_of_the_batch_change_nothing(vlm: VLM, samples: list[Sample]) -> None:
    sketcher = Sketcher(vlm, dim=512)
    together = sketcher(collate(vlm, samples)).sketches
    alone = torch.cat([sketcher(collate(vlm, [sample])).sketches for sample in samples])
    backwards = sketcher(collate(vlm, samples[::-1])).sketches.flip(0)
    scale = float(together.abs().max())
    assert (together - alone).abs().max() < 1e-5 * scale
    assert (together - backwards).abs().max() < 1e-5 * scale


def test_a_small_memory_gives_the_same(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples)
    sketcher, frugal = Sketcher(vlm, dim=512), Sketcher(vlm, dim=512, memory_mb=0)  # a row at a time, places anew
    assert sketcher.describe()["plan"]["places"] == "kept" != frugal.describe()["plan"]["places"]
    whole, rows = sketcher(batch), frugal(batch)
    torch.testing.assert_close(rows.sketches, whole.sketches, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows.grand, whole.grand, rtol=1e-5, atol=0)


def test_the_same_batch_twice_gives_the_same_bits(adapted: VLM, samples: list[Sample]) -> None:
    batch = collate(adapted, samples)
    first, second = (Sketcher(adapted, dim=512)(batch) for _ in range(2))
    assert torch.equal(first.sketches, second.sketches)
    assert torch.equal(first.grand, second.grand)


def test_sketches_keep_the_cosines_of_gradients(vlm: VLM, samples: list[Sample]) -> None:
    sketcher = Sketcher(vlm, dim=2048)
    slow = torch.nn.functional.normalize(exact(vlm, samples, sketcher))
    ours = torch.nn.functional.normalize(sketcher(collate(vlm, samples)).sketches)
    assert (ours @ ours.T - slow @ slow.T).abs().max() < 5 * 0.031  # five standard deviations at 2048


def test_nothing_below_the_lowest_layer_is_differentiated(vlm: VLM, samples: list[Sample]) -> None:
    layers = decoder_layers(vlm)
    differentiable: dict[int, bool] = {}
    handles = [
        layer.register_forward_hook(lambda _, __, out, i=i: differentiable.__setitem__(i, out.requires_grad))
        for i, layer in enumerate(layers)
    ]
    Sketcher(vlm, [2])(collate(vlm, samples[:4]))
    for handle in handles:
        handle.remove()
    assert differentiable == {0: False, 1: False, 2: True, 3: True}
    assert all(parameter.grad is None for parameter in vlm.model.parameters())


def test_hooks_are_gone_afterwards(vlm: VLM, samples: list[Sample]) -> None:
    sketcher = Sketcher(vlm)
    sketcher(collate(vlm, samples[:2]))
    assert not any(module._forward_hooks for module in sketcher.plan.modules)


def test_layers_are_the_text_decoders(vlm: VLM, adapted: VLM) -> None:
    for model in (vlm, adapted):
        layers = decoder_layers(model)
        assert len(layers) == 4
        assert all(module in set(model.decoder().modules()) for module in make_plan(model, [0], "full").modules)


@pytest.mark.parametrize(
    ("layers", "count", "chosen"),
    [
        ("middle", 3, (1,)),
        ("middle", 4, (2,)),
        ("middle", 1, (0,)),
        ("last", 4, (3,)),
        ([3, 1, 1], 4, (1, 3)),
        ([-1], 4, (3,)),
    ],
)
def test_choose_layers(layers: Literal["middle", "last"] | list[int], count: int, chosen: tuple[int, ...]) -> None:
    assert choose_layers(layers, count) == chosen


@pytest.mark.parametrize("layers", [[4], [-5], []])
def test_layers_that_are_not_there(vlm: VLM, layers: list[int]) -> None:
    with pytest.raises(ModelError, match=r"sketch\.layers(.|\n)*numbers from 0 to 3 \(from -1 for the last to -4\)"):
        make_plan(vlm, layers, "full")


def test_lora_without_an_adapter(vlm: VLM) -> None:
    with pytest.raises(ModelError, match=r"no adapter in layers \[2\](.|\n)*Set `sketch.params` to auto or full"):
        make_plan(vlm, "middle", "lora")


def test_a_layer_without_linear_maps(vlm: VLM) -> None:
    decoder_layers(vlm)[2] = torch.nn.Identity()
    with pytest.raises(ModelError, match=r"no linear map in layers \[2\](.|\n)*Set `sketch.layers` to others"):
        make_plan(vlm, "middle", "full")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_named(vlm: VLM, adapted: VLM, dtype: torch.dtype) -> None:
    """Packed as bitsandbytes does; the factors of an adapter on them are still there to be sketched."""
    for model in (vlm, adapted):
        linear = decoder_layers(model)[2].self_attn.q_proj
        linear = getattr(linear, "base_layer", linear)
        linear.weight = torch.nn.Parameter(torch.zeros(512, 1).to(dtype), requires_grad=False)
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(ModelError, match=rf"layer 2.self_attn.q_proj .* is quantised \({name}\)") as error:
            make_plan(model, "middle", "full")
        assert "sketch.params: lora" in error.value.mend
    assert make_plan(adapted, "middle", "auto").params == "lora"


def slow_hidden(vlm: VLM, sample: Sample, layer: int) -> torch.Tensor:
    """(width,) mean of a layer's output over the answer tokens, from the model's own list of hidden states."""
    batch = collate(vlm, [sample])
    with torch.no_grad():
        states = vlm.model(**batch.inputs, output_hidden_states=True).hidden_states
    return states[layer + 1][0][batch.answers[0]].mean(0)


@pytest.mark.parametrize(("layers", "layer"), [("middle", 2), ([0, 1], 1)])
def test_hidden_states_of_the_same_pass(vlm: VLM, samples: list[Sample], layers: Any, layer: int) -> None:
    sketcher = Sketcher(vlm, layers, dim=64, hidden=True)
    assert sketcher.dims == {"gradient": 64, "hidden": 32}
    hidden = sketcher(collate(vlm, samples)).hidden
    torch.testing.assert_close(hidden, torch.stack([slow_hidden(vlm, sample, layer) for sample in samples]))
    assert Sketcher(vlm, layers, dim=64)(collate(vlm, samples[:2])).hidden is None


@pytest.mark.parametrize("which", ["vlm", "adapted"])
def test_bf16_gives_nearly_the_same_directions(
    which: str, samples: list[Sample], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, done here: bf16 products, float32 sums."""
    model = request.getfixturevalue(which)
    batch = collate(model, samples)
    exact_result = Sketcher(model, dim=512)(batch)
    monkeypatch.setattr(signals, "autocast", lambda device: torch.autocast(device.type, torch.bfloat16))
    rough = Sketcher(model, dim=512)(batch)
    cosines = torch.nn.functional.cosine_similarity(rough.sketches, exact_result.sketches)
    assert cosines.min() > 0.99
    assert not torch.equal(rough.sketches, exact_result.sketches)
    torch.testing.assert_close(rough.grand, exact_result.grand, rtol=0.05, atol=0)
    torch.testing.assert_close(rough.signals.nll, exact_result.signals.nll, rtol=0.02, atol=0.02)

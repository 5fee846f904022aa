"""Load, train, save, load again, generate: each family as a lineage takes it from round to round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from family_models import Family
from peft.tuners.lora import LoraLayer

from adapt_inf.data.samples import Sample
from adapt_inf.files import folder_digest
from adapt_inf.models.batches import collate
from adapt_inf.models.chat import takes_suffix
from adapt_inf.models.generation import answer, as_base
from adapt_inf.models.training import Trained
from adapt_inf.models.vlm import VLM, load_vlm, save_adapter
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.grounding import WithoutImage
from adapt_inf.sketching.signals import AnswerPass


def test_a_few_steps_learn(trained: tuple[VLM, Trained]) -> None:
    log = trained[1].log
    assert len(log) == 3
    assert log[-1]["loss"] < log[0]["loss"]
    assert all(row["gradient_norm"] > 0 for row in log)


def test_the_adapter_lies_on_every_map_of_the_text_and_on_the_projector(family: Family, adapted: VLM) -> None:
    modules = dict(adapted.network.named_modules())
    decoder = {id(module) for module in adapted.decoder().modules()}
    plain = {id(module.base_layer) for module in modules.values() if isinstance(module, LoraLayer)}
    maps = {name for name, module in modules.items() if isinstance(module, LoraLayer)}
    bare = {
        name
        for name, module in modules.items()
        if isinstance(module, torch.nn.Linear) and id(module) not in plain and "lora_" not in name
    }
    assert len([name for name in maps if id(modules[name]) in decoder]) == 4 * 7
    assert not [name for name in bare if id(modules[name]) in decoder]
    assert any(id(modules[name]) not in decoder for name in maps) == family.linear_projector
    assert any("vision" in name or "visual" in name for name in bare)  # the tower stays as it is


def test_an_adapter_comes_back_with_the_same_logits(
    trained: tuple[VLM, Trained], adapted: VLM, samples: list[Sample]
) -> None:
    before, _ = trained
    ours, theirs = collate(before, samples).inputs, collate(adapted, samples).inputs
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    weights = dict(before.model.named_parameters())
    assert all(torch.equal(weights.pop(name), value) for name, value in adapted.model.named_parameters())
    assert not weights
    with torch.no_grad():  # where weights lie in memory decides the order of some sums
        torch.testing.assert_close(before.model(**ours).logits, adapted.model(**theirs).logits, atol=5e-6, rtol=1e-5)


def test_an_adapter_that_was_loaded_is_saved_as_the_same_bytes(project: Path, adapted: VLM) -> None:
    """Else a round would change what it only passes on: the processor goes through every folder of a lineage."""
    folders = [project / "rounds" / name / "model" for name in ("r001", "r002")]
    save_adapter(adapted, folders[1])
    assert folder_digest(folders[0]) == folder_digest(folders[1])


def test_generates_the_same_after_loading_again(
    trained: tuple[VLM, Trained], adapted: VLM, vlm: VLM, samples: list[Sample]
) -> None:
    before = answer(trained[0], samples, 6, batch_size=2)
    assert answer(adapted, samples, 6, batch_size=2) == before
    assert answer(adapted, samples, 6, batch_size=1) == before
    with as_base(adapted) as base:
        assert answer(base, samples, 6, batch_size=3) == answer(vlm, samples, 6, batch_size=3)


def test_generation_is_greedy(vlm: VLM, samples: list[Sample]) -> None:
    """The same tokens from whole passes without a cache, one sample at a time."""
    ends = vlm.network.generation_config.eos_token_id
    for sample in samples[:3]:
        inputs = dict(collate(vlm, [sample], generation=True).inputs)
        said: list[int] = []
        for _ in range(4):
            with torch.no_grad():
                token = int(vlm.model(**inputs).logits[0, -1].argmax())
            if token in ends:
                break
            said.append(token)
            one = torch.tensor([[token]])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], one], dim=1)
            inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(one)], dim=1)
            for name in ("token_type_ids", "mm_token_type_ids"):
                if name in inputs:
                    kind = int(takes_suffix(vlm.processor))  # what is said stands outside the prompt
                    inputs[name] = torch.cat([inputs[name], torch.full_like(one, kind)], dim=1)
        assert answer(vlm, [sample], 4, 1) == [vlm.tokenizer.decode(said, skip_special_tokens=True).strip()]


def test_weights_in_bf16_as_a_gpu_holds_them(project: Path, adapted: VLM, samples: list[Sample]) -> None:
    """Processors give pixels in float32 whatever the weights are."""
    rough = load_vlm(project / "rounds" / "r001" / "model")
    rough.model.to(torch.bfloat16)
    batch = collate(adapted, samples)
    ours, exact = (Sketcher(vlm, dim=256)(batch) for vlm in (rough, adapted))
    assert torch.nn.functional.cosine_similarity(ours.sketches, exact.sketches).min() > 0.95
    torch.testing.assert_close(ours.signals.nll, exact.signals.nll, rtol=0.05, atol=0)
    for without in ("blank", "drop"):
        found = WithoutImage(rough, AnswerPass(rough), without, 3)(samples)
        expected = WithoutImage(adapted, AnswerPass(adapted), without, 3)(samples)
        np.testing.assert_allclose(found, expected, rtol=0.05)
    assert len(answer(rough, samples, 3, batch_size=2)) == len(samples)

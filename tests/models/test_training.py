"""Training lowers the loss, is the plain recipe step by step, and ends in the same bytes when it was killed on the
way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_samples import make_sample
from torch import Tensor
from training_steps import first_step

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.errors import AdaptInfError, ModelError
from adapt_inf.models import precision, training
from adapt_inf.models.batches import collate, encode
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.training import CHECKPOINT, PreparedSamples, learning_rate, train
from adapt_inf.models.vlm import VLM, load_vlm, save_adapter

KNOBS = Train(steps=12, batch_size=8, learning_rate=0.02, rank=4, alpha=8, warmup=0.2, weight_decay=0.01, dropout=0.1)


class Held:
    """Samples in memory that count how often each was read."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Any) -> list[Sample]:
        self.reads += [int(i) for i in indices]
        return [self.samples[int(i)] for i in indices]


@pytest.fixture(scope="module")
def held() -> Held:
    words = ["red", "green", "blue", "the second", "yes, left of the square"]
    return Held([make_sample(f"t{i}", i % 3, [("What colour is it? " * (1 + i % 2), words[i % 5])]) for i in range(30)])


def fresh(model: Path, knobs: Train = KNOBS) -> VLM:
    return with_adapter(load_vlm(model), knobs, seed=0)


def saved(vlm: VLM, folder: Path) -> dict[str, bytes]:
    save_adapter(vlm, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_loss_falls(miniature_model: Path, held: Held, tmp_path: Path) -> None:
    knobs = replace(KNOBS, steps=40, dropout=0.0)
    log = train(fresh(miniature_model, knobs), held, knobs, 0, tmp_path).log
    assert [row["step"] for row in log] == list(range(1, 41))
    first, last = (np.mean([row["loss"] for row in part]) for part in (log[:4], log[-4:]))
    assert last < first - 1.5


def test_only_the_adapter_moves(miniature_model: Path, held: Held, tmp_path: Path) -> None:
    vlm = fresh(miniature_model)
    before = {name: p.clone() for name, p in vlm.model.named_parameters()}
    train(vlm, held, replace(KNOBS, steps=2), 0, tmp_path)
    moved = {name for name, p in vlm.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert not vlm.model.training


def test_a_step_is_the_plain_recipe(miniature_model: Path, held: Held, tmp_path: Path) -> None:
    """AdamW written out, gradients of a loss summed sample by sample, on one batch that holds everything."""
    knobs = replace(KNOBS, steps=3, batch_size=30, dropout=0.0, max_grad_norm=0.5)
    vlm, slow = fresh(miniature_model, knobs), fresh(miniature_model, knobs)
    log = train(vlm, held, knobs, 0, tmp_path).log
    weights = {name: p for name, p in slow.model.named_parameters() if p.requires_grad}
    mean = {name: torch.zeros_like(p) for name, p in weights.items()}
    square = {name: torch.zeros_like(p) for name, p in weights.items()}
    for t in (1, 2, 3):
        loss = torch.tensor(0.0)
        for sample in held.samples:
            alone = collate(slow, [sample])
            log_p = slow.model(**alone.inputs).logits[0].log_softmax(-1)
            places = alone.answers[0].nonzero()[:, 0]
            loss = loss - log_p[places - 1, alone.input_ids[0, places]].mean() / len(held)
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
        assert log[t - 1]["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
        assert log[t - 1]["gradient_norm"] == pytest.approx(norm, rel=1e-3)
        rate = log[t - 1]["learning_rate"]
        with torch.no_grad():
            for name, p in weights.items():
                g = gradients[name] * min(1.0, knobs.max_grad_norm / norm)
                mean[name] = 0.9 * mean[name] + 0.1 * g
                square[name] = 0.98 * square[name] + 0.02 * g**2
                p *= 1 - rate * knobs.weight_decay
                p -= rate * (mean[name] / (1 - 0.9**t)) / ((square[name] / (1 - 0.98**t)).sqrt() + 1e-8)
    # Where a gradient is near zero AdamW turns rounding into a step: compare what the two models say.
    batch = collate(vlm, held.samples[:10])
    torch.testing.assert_close(
        vlm.model(**batch.inputs).logits, slow.model(**batch.inputs).logits, atol=2e-2, rtol=1e-2
    )


@pytest.mark.parametrize(
    ("stop", "memory"),
    [
        (5, {}),
        (6, {}),
        (11, {}),
        (5, {"micro_batch": 3}),
        (11, {"micro_batch": 5, "gradient_checkpointing": True}),
        (5, {"batch_size": 2}),  # batches without an image among them: the projector has no gradient there
        (11, {"batch_size": 2}),
    ],
)
def test_a_killed_run_ends_in_the_same_bytes(
    miniature_model: Path,
    held: Held,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    memory: dict[str, Any],
) -> None:
    """Killed after any step: before the first checkpoint, right at one, or long after."""
    knobs = replace(KNOBS, checkpoint_steps=3, **memory)
    undisturbed = fresh(miniature_model)
    log = train(undisturbed, held, knobs, 7, tmp_path / "one").log
    expected = saved(undisturbed, tmp_path / "expected")

    class Killed(BaseException):
        pass

    def dying(step: int, steps: int, of: Train) -> float:
        if step == stop:
            raise Killed
        return learning_rate(step, steps, of)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", dying)
        with pytest.raises(Killed):
            train(fresh(miniature_model), held, knobs, 7, tmp_path / "two")
    assert (tmp_path / "two" / CHECKPOINT).is_file()
    torch.manual_seed(999)  # what the next process's random state may be
    resumed = fresh(miniature_model)
    again = train(resumed, held, knobs, 7, tmp_path / "two").log
    assert again == log
    assert saved(resumed, tmp_path / "got") == expected


@pytest.mark.parametrize("size", [1, 3, 7])
def test_micro_batches_give_the_gradient_of_the_whole_batch(miniature_model: Path, held: Held, size: int) -> None:
    knobs = replace(KNOBS, dropout=0.0)
    found = []
    for part in (len(held), size):
        vlm = fresh(miniature_model, knobs)
        batches = [collate(vlm, held.samples[at : at + part]) for at in range(0, len(held), part)]
        found.append(first_step(vlm, knobs, batches, len(held)))
    (whole, expected), (row, got) = found
    assert row == pytest.approx(whole, rel=1e-5)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_micro_batches_take_the_same_steps(miniature_model: Path, held: Held, tmp_path: Path) -> None:
    """Two workers, each with a share of 8 cut into 3, 3 and 2."""
    knobs = replace(KNOBS, dropout=0.0, batch_size=16, steps=6)
    logs = []
    for size in (None, 3, 3):
        work = tmp_path / str(len(logs))
        logs.append(train(fresh(miniature_model, knobs), held, replace(knobs, micro_batch=size), 0, work).log)
    assert logs[1] == logs[2]
    for whole, cut in zip(logs[0], logs[1], strict=True):
        assert cut == pytest.approx(whole, rel=1e-3)


def test_activations_computed_again_give_the_same_gradients_and_are_not_kept(miniature_model: Path, held: Held) -> None:
    """Dropout masks included, outside the last layer: its feed-forward part sees other positions."""
    held_bytes, outcomes = [], []
    for again in (False, True):
        knobs = replace(KNOBS, gradient_checkpointing=again, targets=r".*language_model\.layers\.[012]\..*_proj")
        vlm = fresh(miniature_model, knobs)
        weights = {weight.data_ptr() for weight in vlm.model.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept, weights: set[int] = weights) -> Tensor:
            if tensor.data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            torch.manual_seed(0)  # of the dropout
            outcomes.append(first_step(vlm, knobs, [collate(vlm, held.samples)], len(held)))
        held_bytes.append(sum(kept.values()))
        assert not any(getattr(module, "gradient_checkpointing", False) for module in vlm.model.modules())
    assert held_bytes[1] < 0.3 * held_bytes[0]
    assert outcomes[1][0] == pytest.approx(outcomes[0][0], rel=1e-6)
    for a, b in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_in_bf16_the_loss_falls_as_in_float32_and_weights_stay_float32(
    miniature_model: Path, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on the CPU's own bf16."""
    knobs = replace(KNOBS, dropout=0.0, steps=20)
    logs = []
    for name in ("float32", "bfloat16"):
        monkeypatch.setattr(precision, "precision", lambda _, name=name: name)
        vlm = fresh(miniature_model, knobs)
        logs.append([row["loss"] for row in train(vlm, held, knobs, 0, tmp_path / name).log])
        assert {weight.dtype for weight in vlm.model.parameters()} == {torch.float32}
    assert logs[0] != logs[1]
    assert logs[1] == pytest.approx(logs[0], rel=0.05)


@pytest.mark.parametrize("batch_size", [8, 16])
def test_a_loss_that_is_no_number_ends_the_run_with_step_and_mend(
    miniature_model: Path, held: Held, tmp_path: Path, capfd: pytest.CaptureFixture[str], batch_size: int
) -> None:
    knobs = replace(KNOBS, learning_rate=1e30, warmup=0.0, batch_size=batch_size, checkpoint_steps=1)
    with pytest.raises(AdaptInfError, match=r"at step 2 of 12.\n.*Lower train.learning_rate, which is 1e\+30"):
        train(fresh(miniature_model), held, knobs, 0, tmp_path)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("batch_size", [8, 16])
def test_a_sample_that_the_model_cannot_read_is_named(
    miniature_model: Path, held: Held, tmp_path: Path, capfd: pytest.CaptureFixture[str], batch_size: int
) -> None:
    """Whichever worker comes upon it."""
    for place in range(0, 30, 7):
        samples = list(held.samples)
        samples[place] = make_sample("long", 0, [("What colour is it? " * 100, "red")])
        with pytest.raises(AdaptInfError, match=r"sample drop/long: .*of which the model takes 256"):
            train(fresh(miniature_model), Held(samples), replace(KNOBS, batch_size=batch_size), 0, tmp_path)
    assert "Traceback" not in capfd.readouterr().err


def test_a_model_that_cannot_compute_activations_again_is_named(
    miniature_model: Path, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = fresh(miniature_model)
    monkeypatch.setattr(type(vlm.network), "supports_gradient_checkpointing", False)
    with pytest.raises(ModelError, match=r"Set train\.gradient_checkpointing: false"):
        train(vlm, held, replace(KNOBS, gradient_checkpointing=True), 0, tmp_path)


@pytest.mark.parametrize("batch_size", [7, 16])
def test_samples_and_tokens_are_counted(miniature_model: Path, held: Held, tmp_path: Path, batch_size: int) -> None:
    vlm = fresh(miniature_model)
    trained = train(vlm, held, replace(KNOBS, steps=None, epochs=2, batch_size=batch_size), 0, tmp_path)
    assert trained.samples == 2 * len(held)
    assert trained.tokens == 2 * sum(len(item.ids) for item in encode(vlm, held.samples))
    assert trained.seconds > 0


def test_seeds_give_other_weights_and_the_outer_random_state_is_left_alone(
    miniature_model: Path, held: Held, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    got = []
    for i, seed in enumerate((7, 7, 8)):
        vlm = fresh(miniature_model)
        train(vlm, held, replace(KNOBS, steps=3), seed, tmp_path / str(i))
        got.append(saved(vlm, tmp_path / f"out{i}"))
    assert got[0] == got[1]
    assert got[0] != got[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_each_sample_is_prepared_once_while_there_is_room(vlm: VLM, held: Held) -> None:
    source = Held(held.samples)
    prepared = PreparedSamples(vlm, source, 100 << 20)
    for indices in ([0, 1, 2], [2, 1, 5], [5, 0, 2]):
        got, expected = prepared.batch(np.array(indices)), collate(vlm, [held.samples[i] for i in indices])
        assert got.inputs.keys() == expected.inputs.keys()
        assert all(torch.equal(got.inputs[name], expected.inputs[name]) for name in got.inputs)
        assert torch.equal(got.answers, expected.answers)
    assert sorted(source.reads) == [0, 1, 2, 5]


def test_without_room_samples_are_prepared_again_and_nothing_else_changes(
    miniature_model: Path, held: Held, tmp_path: Path
) -> None:
    outputs = []
    for mb in (0, 100):
        vlm = fresh(miniature_model)
        train(vlm, held, replace(KNOBS, cache_mb=mb), 3, tmp_path / str(mb))
        outputs.append(saved(vlm, tmp_path / f"out{mb}"))
    assert outputs[0] == outputs[1]


def test_epochs_become_steps(miniature_model: Path, held: Held, tmp_path: Path) -> None:
    log = train(fresh(miniature_model), held, replace(KNOBS, steps=None, epochs=1.5), 0, tmp_path).log
    assert len(log) == 6  # four batches an epoch
    assert sum(row["samples"] for row in log[:4]) == len(held)


def test_the_rate_rises_and_falls_as_a_cosine() -> None:
    knobs = replace(KNOBS, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(step, 100, knobs) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.01
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert learning_rate(1, 1, replace(knobs, warmup=0.0)) == 1.0

"""Signals against their definitions, from the logits of the whole model, one sample at a time."""

from __future__ import annotations

import math

import pytest
import torch

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import collate
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching import signals as module
from adapt_inf.sketching.signals import AnswerPass


def slow_signals(vlm: VLM, sample: Sample) -> tuple[float, float, float, int]:
    batch = collate(vlm, [sample])
    with torch.no_grad():
        p = vlm.model(**batch.inputs).logits[0].double().softmax(-1)
    nll, el2n, entropy = [], [], []
    for at in range(1, p.shape[0]):
        if batch.answers[0, at]:
            row, target = p[at - 1], int(batch.input_ids[0, at])
            onehot = torch.zeros_like(row)
            onehot[target] = 1
            nll.append(-math.log(row[target]))
            el2n.append(float((row - onehot).norm()))
            entropy.append(float(-(row * row.log()).sum()))
    count = len(nll)
    return sum(nll) / count, sum(el2n) / count, sum(entropy) / count, count


def test_signals_are_means_over_answer_tokens(adapted: VLM, samples: list[Sample]) -> None:
    ours = AnswerPass(adapted)(collate(adapted, samples))
    slow = torch.tensor([slow_signals(adapted, sample) for sample in samples], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([ours.nll, ours.el2n, ours.entropy], 1), slow[:, :3], rtol=1e-5, atol=1e-6)
    assert ours.answer_tokens.tolist() == slow[:, 3].long().tolist()


def test_backward_changes_no_signal(vlm: VLM, samples: list[Sample]) -> None:
    batch, answers = collate(vlm, samples), AnswerPass(vlm)
    leaf = vlm.decoder().norm.register_forward_hook(lambda _, __, out: out.requires_grad_(True))
    with_backward = answers(batch, backward=True)
    leaf.remove()
    assert torch.equal(with_backward.nll, answers(batch).nll)


def test_chunks_of_the_vocabulary_rows(vlm: VLM, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate(vlm, samples)
    whole = AnswerPass(vlm)(batch)
    monkeypatch.setattr(module, "LOGIT_BYTES", 1)  # one answer token at a time
    torch.testing.assert_close(AnswerPass(vlm)(batch).entropy, whole.entropy, rtol=1e-6, atol=0)


def test_no_answer_token_is_nan(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples[:3])
    batch.answers[1] = False
    ours = AnswerPass(vlm)(batch)
    assert ours.nll.isnan().tolist() == [False, True, False]
    assert ours.answer_tokens[1] == 0


def test_a_certain_prediction_has_no_entropy_and_no_error() -> None:
    log_p = torch.log_softmax(torch.tensor([[200.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), dim=-1)
    el2n, entropy = module._el2n_entropy(log_p, torch.tensor([0, 1]))
    torch.testing.assert_close(el2n, torch.tensor([0.0, math.sqrt(2 / 3)]))
    torch.testing.assert_close(entropy, torch.tensor([0.0, math.log(3)]))


def test_a_model_that_changes_its_logits_is_taken_at_its_word(vlm: VLM, samples: list[Sample]) -> None:
    """Some families cap or scale what their output layer says, in their own forward."""
    before = AnswerPass(vlm)(collate(vlm, samples)).nll

    def capped(_: object, __: object, output: object) -> None:
        output.logits = 2 * torch.tanh(output.logits / 2)  # type: ignore[attr-defined]

    vlm.network.register_forward_hook(capped)
    ours = AnswerPass(vlm)(collate(vlm, samples))
    slow = torch.tensor([slow_signals(vlm, sample) for sample in samples], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([ours.nll, ours.el2n, ours.entropy], 1), slow[:, :3], rtol=1e-5, atol=1e-6)
    assert (ours.nll - before).abs().min() > 1e-3

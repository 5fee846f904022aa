"""Logits at answers only are the logits of the whole pass, and the loss is that of a plain loop."""

from __future__ import annotations

import torch

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import collate
from adapt_inf.models.likelihood import answer_logits, answer_states, sample_nll
from adapt_inf.models.vlm import VLM


def test_logits_and_labels_are_those_of_the_whole_pass(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples)
    logits, labels, rows = answer_logits(vlm, batch)
    assert len(logits) == int(batch.answers.sum())
    whole = vlm.model(**batch.inputs).logits
    for at, (row, col) in enumerate(batch.answers.nonzero().tolist()):
        torch.testing.assert_close(logits[at], whole[row, col - 1], atol=1e-5, rtol=1e-4)
        assert labels[at] == batch.input_ids[row, col]
        assert rows[at] == row


def test_the_head_is_itself_again_afterwards(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples)
    answer_logits(vlm, batch)
    assert vlm.model(**batch.inputs).logits.shape[:2] == batch.input_ids.shape


def test_loss_per_sample_is_that_of_a_plain_loop(vlm: VLM, samples: list[Sample]) -> None:
    """One sample at a time, one token at a time, from the probabilities of a full pass."""
    batch = collate(vlm, samples)
    losses = sample_nll(*answer_logits(vlm, batch), n=len(samples))
    for i, sample in enumerate(samples):
        alone = collate(vlm, [sample])
        probabilities = vlm.model(**alone.inputs).logits[0].double().softmax(-1)
        total = tokens = 0.0
        for place, said in enumerate(alone.answers[0].tolist()):
            if said:
                total -= float(probabilities[place - 1, alone.input_ids[0, place]].log())
                tokens += 1
        assert tokens > 1
        assert abs(float(losses[i]) - total / tokens) < 1e-4


def test_a_long_answer_counts_as_much_as_a_short_one() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels, rows = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 1, 1, 1, 1])
    by_token = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(sample_nll(logits, labels, rows, 2), torch.stack([by_token[0], by_token[1:].mean()]))


def test_every_gradient_is_that_of_the_whole_pass(vlm: VLM, samples: list[Sample]) -> None:
    """The last layer's feed-forward part runs on few positions, in both directions."""
    vlm.model.requires_grad_(True)
    weights = [weight for name, weight in vlm.model.named_parameters() if "layers" in name and "vision" not in name]
    batch = collate(vlm, samples)
    ours = torch.autograd.grad(sample_nll(*answer_logits(vlm, batch), n=len(batch)).sum(), weights)
    logits = vlm.model(**batch.inputs).logits
    rows, places = batch.answers[:, 1:].nonzero(as_tuple=True)
    whole = sample_nll(logits[rows, places], batch.input_ids[rows, places + 1], rows, len(batch)).sum()
    for mine, plain in zip(ours, torch.autograd.grad(whole, weights), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-5)
    vlm.model.requires_grad_(False)


def test_the_last_feed_forward_sees_answers_alone(vlm: VLM, samples: list[Sample]) -> None:
    batch = collate(vlm, samples)
    seen: list[tuple[int, ...]] = []
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2])))
        for layer in vlm.decoder().layers
    ]
    answer_logits(vlm, batch)
    answer_states(vlm, batch, whole_layers=True)
    for handle in handles:
        handle.remove()
    whole = tuple(batch.input_ids.shape)
    assert seen == [whole] * 3 + [(1, int(batch.answers.sum()))] + [whole] * 4


def test_pictures_change_the_likelihood(vlm: VLM, samples: list[Sample]) -> None:
    own = sample_nll(*answer_logits(vlm, collate(vlm, samples)), n=len(samples))
    batch = collate(vlm, samples)
    batch.inputs["pixel_values"].zero_()
    blank = sample_nll(*answer_logits(vlm, batch), n=len(samples))
    changed = (own != blank).tolist()
    assert changed == [len(sample.images) > 0 for sample in samples]

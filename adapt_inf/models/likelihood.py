"""How likely a model finds the answers of a batch: what its output layer says at answer positions, and only there.

Most positions are prompt or picture, and nobody asks what the model would say there. So the output layer, the widest
map there is, runs on answer positions alone; and so does the feed-forward part of the last decoder layer, whose other
outputs nothing reads. What a family does to its logits after the output layer (scale them, cap them) is done by the
family's own code: its forward runs again around a stand-in for the inner model that returns what that has computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapt_inf.errors import ModelError
from adapt_inf.models.batches import Batch
from adapt_inf.models.structure import decoder_layers, feed_forward
from adapt_inf.models.vlm import VLM


@dataclass(frozen=True)
class AnswerStates:
    """The n answer tokens of a batch, in reading order, and the last hidden states that foretell them.

    Attributes:
        hidden: (n, width) of the model's floating type; gradients flow where they are enabled.
        labels: (n,) the answer tokens.
        rows: (n,) the sample of the batch that each belongs to.
    """

    hidden: Tensor
    labels: Tensor
    rows: Tensor
    _network: Any
    _output: Any

    def __len__(self) -> int:
        return len(self.labels)

    def logits(self, hidden: Tensor) -> Tensor:
        """(m, vocabulary) logits of m of the hidden states, or of copies of them."""
        self._output.last_hidden_state = hidden[None]
        inner = self._network.base_model
        inner.forward = lambda *_, **__: self._output
        try:
            return self._network(input_ids=self.labels[None, : len(hidden)], use_cache=False).logits[0]
        finally:
            del inner.forward  # the class's own method shows again


def answer_states(vlm: VLM, batch: Batch, whole_layers: bool = False) -> AnswerStates:
    """One forward pass up to the output layer.

    Args:
        vlm: the model.
        batch: padded on the right.
        whole_layers: run every part of every layer on every position; needed where hooks read the last layer.

    Raises:
        ModelError: the model has no inner model apart from its output layer.
    """
    network = vlm.network
    if network.base_model is network:
        raise ModelError(str(vlm.base), "its output layer cannot be told from the rest of it")
    rows, places = batch.answers[:, 1:].nonzero(as_tuple=True)  # the token at place + 1 is foretold at place
    with _answers_alone(None if whole_layers else _last_feed_forward(vlm), rows, places):
        output = network.base_model(**batch.inputs, use_cache="past_key_values" in batch.inputs)
    hidden = output.last_hidden_state[rows, places]
    return AnswerStates(hidden, batch.input_ids[rows, places + 1], rows, network, output)


def _last_feed_forward(vlm: VLM) -> nn.Module | None:
    last = decoder_layers(vlm)[-1]
    # A layer that is computed again in the backward pass would be so after the hooks are gone.
    return None if getattr(last, "gradient_checkpointing", False) else feed_forward(last)


@contextmanager
def _answers_alone(module: nn.Module | None, rows: Tensor, places: Tensor) -> Iterator[None]:
    """Inside, `module` sees the given positions alone, and its output is zero at all others."""
    if module is None:
        yield
        return
    shapes: list[torch.Size] = []

    def cut(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        shapes.append(args[0].shape)
        return (args[0][rows, places][None],)

    def restore(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output.new_zeros(shapes.pop()).index_put((rows, places), output[0])

    handles = [module.register_forward_pre_hook(cut), module.register_forward_hook(restore)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def answer_logits(vlm: VLM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass; the prediction of every answer token of the batch.

    Returns:
        logits (n, vocabulary), labels (n,) the answer tokens, rows (n,) the sample of the batch that each belongs to;
        in reading order. Gradients flow where they are enabled.
    """
    states = answer_states(vlm, batch)
    return states.logits(states.hidden), states.labels, states.rows


def sample_nll(logits: Tensor, labels: Tensor, rows: Tensor, n: int) -> Tensor:
    """(n,) float32: each sample's mean negative log-likelihood over its answer tokens, in nats.

    l(x), the loss of a sample: one counts as much as another, however long its answer is.
    """
    nll = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    zeros = nll.new_zeros(n)
    return zeros.index_add(0, rows, nll) / zeros.index_add(0, rows, torch.ones_like(nll))

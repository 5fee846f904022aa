"""How likely a model finds the answers of a batch: logits at answer positions only, and the loss per sample.

The language-model head is the widest map of a small model, and most positions are prompt or picture; so the hidden
states are cut down to the answer positions just before the head, whatever the family. That saves its cost everywhere
else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adapt_inf.models.batches import Batch
from adapt_inf.models.vlm import VLM


def answer_logits(vlm: VLM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass; the prediction of every answer token of the batch.

    Returns:
        logits (n, vocabulary), labels (n,) the answer tokens, rows (n,) the sample of the batch that each belongs to;
        in reading order. Gradients flow where they are enabled.
    """
    rows, places = batch.answers[:, 1:].nonzero(as_tuple=True)  # the token at place + 1 is predicted at place
    head = vlm.network.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, places], *inputs[1:]))
    try:
        logits = vlm.model(**batch.inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits, batch.input_ids[rows, places + 1], rows


def sample_nll(logits: Tensor, labels: Tensor, rows: Tensor, n: int) -> Tensor:
    """(n,) float32: each sample's mean negative log-likelihood over its answer tokens, in nats.

    l(x), the loss of a sample: one counts as much as another, however long its answer is.
    """
    nll = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    zeros = nll.new_zeros(n)
    return zeros.index_add(0, rows, nll) / zeros.index_add(0, rows, torch.ones_like(nll))

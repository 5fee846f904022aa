"""Signals of a sample that one forward yields: nll, EL2N and entropy of its answer; and the backward of nll.

Hidden states at answer positions go through the output layer a few thousand rows at a time, so logits over the
vocabulary never exist for prompts, images or padding, nor for a whole batch at once where the vocabulary is large.
All are means over a sample's answer tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt_inf.models.batches import Batch
from adapt_inf.models.likelihood import answer_states
from adapt_inf.models.precision import autocast
from adapt_inf.models.vlm import VLM

LOGIT_BYTES = 64 * 2**20  # of float32 logits at a time; the softmax and its gradient need a few times this


@dataclass(frozen=True)
class Signals:
    """Per sample, (B,) float64 on the CPU: means over the answer tokens, nan for a sample without any."""

    nll: Tensor
    el2n: Tensor
    entropy: Tensor
    answer_tokens: Tensor  # (B,) int64


class AnswerPass:
    """Runs a model over batches for the signals of their answers; bf16 matrix products where the device has them.

    Args:
        vlm: the model. Its parameters are frozen.
    """

    def __init__(self, vlm: VLM) -> None:
        vlm.model.requires_grad_(False)
        self._vlm = vlm
        vocabulary = vlm.network.get_output_embeddings().weight.shape[0]
        self._chunk = max(1, LOGIT_BYTES // (4 * vocabulary))

    def __call__(self, batch: Batch, backward: bool = False, whole_layers: bool = False) -> Signals:
        """Signals of a batch.

        With `backward`, the sum over the batch of per-sample mean nll is propagated back: samples do not mix, so what
        hooks see at a sample's positions is the gradient of that sample's own loss. `whole_layers`: see
        `models.likelihood.answer_states`.
        """
        with torch.set_grad_enabled(backward), autocast(self._vlm.device):
            states = answer_states(self._vlm, batch, whole_layers)
            count = torch.bincount(states.rows, minlength=len(batch))
            weights = 1.0 / count[states.rows]
            leaf = states.hidden.detach().requires_grad_(backward)
            sums = torch.zeros(3, len(batch), dtype=torch.float64, device=leaf.device)
            for start in range(0, len(states), self._chunk):
                part = slice(start, start + self._chunk)
                log_p = torch.log_softmax(states.logits(leaf[part]).float(), dim=-1)
                nll = -log_p.gather(1, states.labels[part, None])[:, 0]
                if backward:
                    (nll * weights[part]).sum().backward()
                values = torch.stack([nll.detach(), *_el2n_entropy(log_p.detach(), states.labels[part])])
                sums.index_add_(1, states.rows[part], values.double())
        if backward:  # also where no sample has an answer: processes that share weights run the same passes
            states.hidden.backward(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
        nll, el2n, entropy = (sums / count).cpu()  # 0 / 0 is nan: no answer, no signal
        return Signals(nll=nll, el2n=el2n, entropy=entropy, answer_tokens=count.cpu())


def _el2n_entropy(log_p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """EL2N (Paul et al. 2021), |p - onehot(y)|, and entropy in nats of (rows, V) log probabilities: (rows,) each."""
    p = log_p.exp()
    p_target = p.gather(1, targets[:, None])[:, 0]
    el2n = torch.sqrt((p.square().sum(1) - 2 * p_target + 1).clamp_min(0))
    return el2n, -(p * log_p).sum(1)

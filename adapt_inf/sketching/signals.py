"""Signals of a sample that one forward yields: nll, EL2N and entropy of its answer; and the backward of nll.

The inner model runs once without its output layer. Hidden states at answer positions alone then go through the output
layer, a few thousand rows at a time, so logits over the vocabulary never exist for prompts, images or padding.
All are means over a sample's answer tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt_inf.errors import ModelError
from adapt_inf.models.batches import Batch
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
    """Runs a model over batches for the signals of their answers.

    Args:
        vlm: the model. Its parameters are frozen.

    Raises:
        ModelError: its logits are not those of its output layer on its last hidden states.
    """

    def __init__(self, vlm: VLM) -> None:
        vlm.model.requires_grad_(False)
        outer = vlm.network
        self.inner = outer.base_model
        self.head = outer.get_output_embeddings()
        self._check_head(vlm)

    def _check_head(self, vlm: VLM) -> None:
        """Some models scale or cap their logits after the output layer: those would give other signals here."""
        # Special tokens, the image's among them, stand at an end of a vocabulary: ordinary ones are in its middle.
        ids = torch.arange(4, device=self.head.weight.device)[None] + self.head.weight.shape[0] // 2
        with torch.no_grad():
            whole = vlm.network(input_ids=ids, use_cache=False).logits
            ours = self.head(self.inner(input_ids=ids, use_cache=False).last_hidden_state)
        if not torch.allclose(whole, ours, rtol=1e-3, atol=1e-3):
            raise ModelError(str(vlm.base), "it changes logits after its output layer")

    def __call__(self, batch: Batch, backward: bool = False) -> Signals:
        """Signals of a batch.

        With `backward`, the sum over the batch of per-sample mean nll is propagated back: samples do not mix, so what
        hooks see at a sample's positions is the gradient of that sample's own loss.
        """
        with torch.set_grad_enabled(backward):
            hidden = self.inner(**batch.inputs, use_cache=False).last_hidden_state
            samples, positions = batch.answers[:, 1:].nonzero(as_tuple=True)  # the token at p + 1 is told at p
            targets = batch.inputs["input_ids"][samples, positions + 1]
            rows = hidden[samples, positions]
            count = torch.bincount(samples, minlength=len(hidden))
            weights = 1.0 / count[samples]
            leaf = rows.detach().requires_grad_(backward)
            sums = torch.zeros(3, len(hidden), dtype=torch.float64, device=hidden.device)
            chunk = max(1, LOGIT_BYTES // (4 * self.head.weight.shape[0]))
            for start in range(0, len(rows), chunk):
                part = slice(start, start + chunk)
                log_p = torch.log_softmax(self.head(leaf[part]).float(), dim=-1)
                nll = -log_p.gather(1, targets[part, None])[:, 0]
                if backward:
                    (nll * weights[part]).sum().backward()
                values = torch.stack([nll.detach(), *_el2n_entropy(log_p.detach(), targets[part])])
                sums.index_add_(1, samples[part], values.double())
            if backward and len(rows):
                rows.backward(leaf.grad)
        nll, el2n, entropy = (sums / count).cpu()  # 0 / 0 is nan: no answer, no signal
        return Signals(nll=nll, el2n=el2n, entropy=entropy, answer_tokens=count.cpu())


def _el2n_entropy(log_p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """EL2N (Paul et al. 2021), |p - onehot(y)|, and entropy in nats of (rows, V) log probabilities: (rows,) each."""
    p = log_p.exp()
    p_target = p.gather(1, targets[:, None])[:, 0]
    el2n = torch.sqrt((p.square().sum(1) - 2 * p_target + 1).clamp_min(0))
    return el2n, -(p * log_p).sum(1)

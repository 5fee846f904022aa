"""What a model answers: greedy generation, batched with padding on the left, prompts of similar length together.

Each prompt is the chat without its last assistant turn. Answers come back in the order of the samples and do not depend
on what shared a batch, up to ties in float arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from adapt_inf.data.samples import Sample
from adapt_inf.errors import SampleError
from adapt_inf.models.batches import Encoded, encode_readable, length_buckets, pad, token_lengths
from adapt_inf.models.vlm import VLM


def answer(
    vlm: VLM,
    samples: Sequence[Sample],
    max_new_tokens: int,
    batch_size: int,
    advance: Callable[[int], object] = lambda _: None,
    refuse: Callable[[SampleError], object] = lambda _: None,
) -> list[str]:
    """Generate an answer for each sample.

    Args:
        vlm: the model.
        samples: n samples, possibly none.
        max_new_tokens: where an answer without an end is cut.
        batch_size: prompts generated together.
        advance: called with the number of samples after each batch.
        refuse: called with each sample that the model cannot read.

    Returns:
        n texts, without special tokens and outer white space; empty for a sample that the model cannot read.
    """
    texts = [""] * len(samples)
    if not samples:
        return texts
    tokenizer = vlm.tokenizer
    options = vlm.network.generation_config
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    for indices in length_buckets(token_lengths(vlm, samples), batch_size):
        found = encode_readable(vlm, [samples[i] for i in indices], generation=True)
        for item in found:
            if isinstance(item, SampleError):
                refuse(item)
        readable = [(i, item) for i, item in zip(indices, found, strict=True) if isinstance(item, Encoded)]
        advance(len(indices) - len(readable))
        if not readable:
            continue
        batch = pad(vlm, [item for _, item in readable], left=True)
        with torch.no_grad():
            tokens = vlm.model.generate(
                **batch.inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=filler,
                eos_token_id=options.eos_token_id if options.eos_token_id is not None else tokenizer.eos_token_id,
            )
        answers = tokenizer.batch_decode(tokens[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        for (i, _), text in zip(readable, answers, strict=True):
            texts[i] = text.strip()
        advance(len(readable))
    return texts


@contextmanager
def as_base(vlm: VLM) -> Iterator[VLM]:
    """The same model without its adapter, for as long as the block runs."""
    if not vlm.adapted:
        yield vlm
        return
    with vlm.model.disable_adapter():
        yield vlm


@contextmanager
def with_adapter_named(vlm: VLM, name: str) -> Iterator[VLM]:
    """The same model with the adapter that `vlm.add_adapter` put beside its own, for as long as the block runs."""
    own = vlm.model.active_adapter
    vlm.model.set_adapter(name, inference_mode=True)
    try:
        yield vlm
    finally:
        vlm.model.set_adapter(own, inference_mode=True)

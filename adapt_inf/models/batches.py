"""From samples to tensors: render the chat, tokenise, prepare the images, mark the answer tokens, pad.

Two steps, so that work can be kept: `encode` turns each sample into unpadded tensors (the costly step: decoding,
resizing, tokenising; one processor call for many samples) and `pad` joins encoded samples into a batch (cheap).
`collate` is both. What a processor returns beside the text (pixel_values, image_grid_thw, image_sizes, ...) is kept per
sample and joined along its first dimension, other dimensions filled up with zeros; docs/models.md lists the families on
which that is tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt_inf.data.samples import BadSample, Sample
from adapt_inf.errors import SampleError
from adapt_inf.models.encoding import Encoded, Images, encode_chunk, join
from adapt_inf.models.vlm import VLM, first_line

ENCODE_CHUNK = 64  # samples in one processor call: bounds the memory that decoded pictures take
# Batches that a shuffled run sorts by length at a time. Length goes with task, so wide windows give batches of one
# task: at equal steps 32 cost 0.13-0.15 nats of held-out loss against no sorting; 8 0.03-0.05 and was 1.3x as fast.
LENGTH_WINDOW = 8

# What processors raise on a sample that they do not take (a strip of a picture, more pictures than they know, ...).
PROCESSOR_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, OSError)


@dataclass
class Batch:
    """Padded samples on the model's device.

    Attributes:
        inputs: what the model takes, as in `model(**batch.inputs)`: input_ids and attention_mask (b, length) int64, and
            pixel_values with its companions where a sample has images.
        answers: (b, length) bool, True on answer tokens, False on all else and on padding.
        has_image: (b,) bool.
    """

    inputs: dict[str, Tensor]
    answers: Tensor
    has_image: Tensor

    @property
    def input_ids(self) -> Tensor:
        return self.inputs["input_ids"]

    @property
    def attention_mask(self) -> Tensor:
        return self.inputs["attention_mask"]

    @property
    def pixel_values(self) -> Tensor | None:
        return self.inputs.get("pixel_values")

    def __len__(self) -> int:
        return len(self.answers)


def collate(vlm: VLM, samples: Sequence[Sample], *, images: Images = "own", generation: bool = False) -> Batch:
    """Samples as one batch: padded on the right, or on the left for `generation`.

    Args:
        vlm: the model whose processor and device are used.
        samples: at least one.
        images: `own`; `blank`: black pictures of the same sizes, whose files are not decoded; `drop`: without pictures
            and their tokens.
        generation: prompts only: without the last assistant turn, ending where the model is to go on.
    """
    return pad(vlm, encode(vlm, samples, images=images, generation=generation), left=generation)


def encode(vlm: VLM, samples: Sequence[Sample], *, images: Images = "own", generation: bool = False) -> list[Encoded]:
    """The samples as unpadded tensors on the CPU; see `collate`.

    Raises:
        SampleError: the first of them that the model cannot read.
    """
    encoded = []
    for item in encode_readable(vlm, samples, images=images, generation=generation):
        if isinstance(item, SampleError):
            raise item
        encoded.append(item)
    return encoded


def encode_readable(
    vlm: VLM, samples: Sequence[Sample], *, images: Images = "own", generation: bool = False
) -> list[Encoded | SampleError]:
    """Like `encode`, with the reason in the place of a sample that the template, processor or length refuses.

    A chunk that fails is tried sample by sample, so a bad one costs the others of its chunk one more processor call.
    """
    found: list[Encoded | SampleError] = []
    for start in range(0, len(samples), ENCODE_CHUNK):
        found += _encode_or_refuse(vlm, samples[start : start + ENCODE_CHUNK], images, generation)
    return found


def first_readable(vlm: VLM, samples: Iterable[Sample]) -> Batch:
    """A batch of one: the first of `samples` that the model can read.

    Raises:
        StopIteration: it can read none.
    """
    found = (encode_readable(vlm, [sample])[0] for sample in samples)
    return pad(vlm, [next(item for item in found if isinstance(item, Encoded))])


def pad(vlm: VLM, encoded: Sequence[Encoded], *, left: bool = False) -> Batch:
    """Join encoded samples into a batch on the model's device."""
    tokenizer = vlm.tokenizer
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    length = max(len(item.ids) for item in encoded)
    inputs = {
        "input_ids": _stack([item.ids for item in encoded], length, filler, left),
        "attention_mask": _stack([torch.ones_like(item.ids) for item in encoded], length, 0, left),
    }
    for name in sorted({name for item in encoded for name in item.sequences}):
        rows = [item.sequences.get(name, torch.zeros_like(item.ids)) for item in encoded]
        inputs[name] = _stack(rows, length, 0, left)
    for name in sorted({name for item in encoded for name in item.extras}):
        inputs[name] = join([item.extras[name] for item in encoded if name in item.extras])
    answers = _stack([item.answers for item in encoded], length, False, left)
    return Batch(
        inputs={name: value.to(vlm.device, non_blocking=True) for name, value in inputs.items()},
        answers=answers.to(vlm.device),
        has_image=torch.tensor([item.n_images > 0 for item in encoded], device=vlm.device),
    )


def token_lengths(vlm: VLM, samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(n,) about how many tokens each sample takes: right in order, cheap to make; for `length_buckets` only.

    Texts are tokenised without the template's own words; a picture counts as many tokens as the first one takes.
    """
    texts = ["".join(part.get("text", "") for turn in s.messages for part in turn["content"]) for s in samples]
    ids = vlm.tokenizer(texts, add_special_tokens=False)["input_ids"]
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    counts = np.array([len(s.images) for s in samples], dtype=np.int64)
    for row in np.flatnonzero(counts).tolist():  # the first that can be read, as a rule the very first
        own = encode_readable(vlm, [samples[row]])[0]
        if isinstance(own, Encoded):
            bare = encode_readable(vlm, [samples[row]], images="drop")[0]
            rest = len(bare.ids) if isinstance(bare, Encoded) else int(lengths[row])
            lengths += counts * ((len(own.ids) - rest) // counts[row])
            break
    return lengths


def length_buckets(lengths: NDArray[np.int64], batch_size: int, seed: int | None = None) -> list[NDArray[np.int64]]:
    """Batches of samples of similar length: less padding, 1.24-1.36x the speed.

    Args:
        lengths: (n,) tokens per sample.
        batch_size: samples in a batch; the last may be smaller.
        seed: None: sorted by length, for passes that only look. A number: one epoch of training: shuffled, sorted only
            within windows of some batches, and the batches shuffled again.

    Returns:
        Index arrays that together hold every index once.
    """
    if seed is None:
        order = np.argsort(lengths, kind="stable")
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rng = np.random.default_rng([seed, len(lengths), batch_size])
    order = rng.permutation(len(lengths))
    window = LENGTH_WINDOW * batch_size
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _encode_or_refuse(
    vlm: VLM, samples: Sequence[Sample], images: Images, generation: bool
) -> list[Encoded | SampleError]:
    if len(samples) > 1 and not vlm.encodes_singly:
        try:
            encoded = encode_chunk(vlm, samples, images, generation)
        except (SampleError, BadSample, *PROCESSOR_FAULTS):
            pass  # which sample it is shows below
        else:
            return [_fits(vlm, sample, item) for sample, item in zip(samples, encoded, strict=True)]
    found: list[Encoded | SampleError] = []
    for sample in samples:
        try:
            found.append(_fits(vlm, sample, encode_chunk(vlm, [sample], images, generation)[0]))
        except SampleError as error:
            found.append(error)
        except BadSample as error:
            found.append(SampleError(sample.sample_id, error.reason))
        except PROCESSOR_FAULTS as error:
            found.append(SampleError(sample.sample_id, f"the model's processor refuses it ({first_line(error)})"))
    if len(samples) > 1 and not any(isinstance(item, SampleError) for item in found):
        vlm.encodes_singly = True  # nothing is wrong with any of them: this processor takes one at a time
    return found


def _fits(vlm: VLM, sample: Sample, item: Encoded) -> Encoded | SampleError:
    if vlm.max_tokens is not None and len(item.ids) > vlm.max_tokens:
        return SampleError(sample.sample_id, f"{len(item.ids):,} tokens, of which the model takes {vlm.max_tokens:,}")
    return item


def _stack(rows: list[Tensor], length: int, filler: int, left: bool) -> Tensor:
    out = rows[0].new_full((len(rows), length), filler)
    for i, row in enumerate(rows):
        if left:
            out[i, length - len(row) :] = row
        else:
            out[i, : len(row)] = row
    return out

"""From samples to tensors: render the chat, tokenise, prepare the images, mark the answer tokens, pad.

Two steps, so that work can be kept: `encode` turns each sample into unpadded tensors (the costly step: decoding,
resizing, tokenising; one processor call for many samples) and `pad` joins encoded samples into a batch (cheap).
`collate` is both. What a processor returns beside the text (pixel_values, image_grid_thw, image_sizes, ...) is kept per
sample and joined along its first dimension, which holds for LLaVA, LLaVA-NeXT, Pixtral, Gemma 3, Qwen2-VL and Idefics3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from adapt_inf.data.images import decode_image
from adapt_inf.data.samples import BadSample, Sample
from adapt_inf.errors import SampleError
from adapt_inf.models.chat import Span, render
from adapt_inf.models.vlm import VLM, first_line

Images = Literal["own", "blank", "drop"]

ENCODE_CHUNK = 64  # samples in one processor call: bounds the memory that decoded pictures take
MAX_PIXELS = 1 << 30  # of a stored picture; ingest has already held it to the user's own cap
# Batches that a shuffled run sorts by length at a time. Length goes with task, so wide windows give batches of one
# task: at equal steps 32 cost 0.13-0.15 nats of held-out loss against no sorting; 8 0.03-0.05 and was 1.3x as fast.
LENGTH_WINDOW = 8

# What processors raise on a sample that they do not take (a strip of a picture, more pictures than they know, ...).
PROCESSOR_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, OSError)


@dataclass
class Encoded:
    """One sample as tensors, unpadded.

    Attributes:
        ids: (length,) int64 token ids, image tokens expanded.
        answers: (length,) bool, True on the tokens that the assistant says.
        sequences: further (length,) tensors that the processor gave, by name (e.g. mm_token_type_ids).
        extras: what it gave for the images, by name; empty without images.
        n_images: pictures in the sample.
    """

    ids: Tensor
    answers: Tensor
    sequences: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    n_images: int = 0

    @property
    def nbytes(self) -> int:
        tensors = (self.ids, self.answers, *self.sequences.values(), *self.extras.values())
        return sum(tensor.nbytes for tensor in tensors)


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
        images: `own`; `blank`: each picture replaced by a black one of its size; `drop`: without image tokens.
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
        inputs[name] = _join([item.extras[name] for item in encoded if name in item.extras])
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


# One chunk of samples, in the order in which the data go: chat text, answer spans, processor, split per sample.


def _encode_or_refuse(
    vlm: VLM, samples: Sequence[Sample], images: Images, generation: bool
) -> list[Encoded | SampleError]:
    if len(samples) > 1 and not vlm.encodes_singly:
        try:
            encoded = _encode_chunk(vlm, samples, images, generation)
        except (SampleError, BadSample, *PROCESSOR_FAULTS):
            pass  # which sample it is shows below
        else:
            return [_fits(vlm, sample, item) for sample, item in zip(samples, encoded, strict=True)]
    found: list[Encoded | SampleError] = []
    for sample in samples:
        try:
            found.append(_fits(vlm, sample, _encode_chunk(vlm, [sample], images, generation)[0]))
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


def _encode_chunk(vlm: VLM, samples: Sequence[Sample], images: Images, generation: bool) -> list[Encoded]:
    pictures = [_pictures(sample, images) for sample in samples]
    texts: list[str] = []
    spans: list[list[Span]] = []
    for sample in samples:
        text, span = render(vlm, sample, with_images=images != "drop", generation=generation)
        texts.append(text)
        spans.append(span)
    counts = [len(row) for row in pictures]
    output = _process(vlm, texts, pictures)
    split = _split(output, counts)
    if split is None:  # a layout that cannot be told apart in one call: a call per sample
        outputs = [_process(vlm, [text], [row]) for text, row in zip(texts, pictures, strict=True)]
        return [
            _encoded(vlm, one, 0, _extras(one), text, span, row)
            for one, text, span, row in zip(outputs, texts, spans, pictures, strict=True)
        ]
    return [_encoded(vlm, output, i, split[i], texts[i], spans[i], pictures[i]) for i in range(len(samples))]


def _pictures(sample: Sample, images: Images) -> list[Image.Image]:
    if images == "drop":
        return []
    pictures = [decode_image(data, MAX_PIXELS) for data in sample.images]
    return pictures if images == "own" else [Image.new("RGB", picture.size) for picture in pictures]


def _process(vlm: VLM, texts: list[str], pictures: list[list[Image.Image]]) -> dict[str, Any]:
    bos = vlm.tokenizer.bos_token
    options: dict[str, Any] = {"padding": False}
    if bos is not None and texts[0].startswith(bos):
        options["add_special_tokens"] = False  # the template has written it
    if vlm.tokenizer.is_fast:
        options |= {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
    output = vlm.processor(text=texts, images=pictures if any(pictures) else None, **options)
    return dict(output)


def _sequence_names(output: dict[str, Any]) -> list[str]:
    lengths = [len(row) for row in output["input_ids"]]

    def fits(value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == len(lengths)
            and all(isinstance(row, list) and len(row) == n for row, n in zip(value, lengths, strict=True))
        )

    known = {"input_ids", "attention_mask", "offset_mapping", "text_replacement_offsets"}
    return [name for name, value in output.items() if name not in known and fits(value)]


def _extras(output: dict[str, Any]) -> dict[str, Tensor]:
    texts = {"input_ids", "attention_mask", "offset_mapping", "text_replacement_offsets", *_sequence_names(output)}
    return {name: _tensor(value) for name, value in output.items() if name not in texts}


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        return _join([item[None] for item in value])
    return torch.as_tensor(np.asarray(value))


def _split(output: dict[str, Any], counts: list[int]) -> list[dict[str, Tensor]] | None:
    """The images' tensors per sample, or None where the layout does not say which rows are whose."""
    total = sum(counts)
    if total == 0:
        return [{} for _ in counts]
    grid = output.get("image_grid_thw")
    patches = _tensor(grid).prod(dim=-1).tolist() if grid is not None else None
    rows: list[dict[str, Tensor]] = [{} for _ in counts]
    # A first dimension of `total` is one row a picture, unless it may as well be one row a sample.
    a_row_a_picture = grid is not None or total != len(counts) or all(count == 1 for count in counts)
    for name, tensor in _extras(output).items():
        if patches is not None and len(tensor) == sum(patches) != total:
            ends = np.cumsum([0, *counts])
            sizes = [sum(patches[ends[i] : ends[i + 1]]) for i in range(len(counts))]
        elif len(tensor) == total and a_row_a_picture:
            sizes = counts
        else:
            return None
        for row, part in zip(rows, tensor.split(sizes), strict=True):
            if len(part):
                row[name] = part.clone()  # its own memory: a view would keep the whole chunk alive
    return rows


def _encoded(
    vlm: VLM,
    output: dict[str, Any],
    row: int,
    extras: dict[str, Tensor],
    text: str,
    spans: list[Span],
    pictures: list[Image.Image],
) -> Encoded:
    ids = torch.tensor(output["input_ids"][row], dtype=torch.int64)
    return Encoded(
        ids=ids,
        answers=_answer_mask(vlm, output, row, len(ids), text, spans, pictures),
        sequences={name: torch.tensor(output[name][row]) for name in _sequence_names(output)},
        extras=extras,
        n_images=len(pictures),
    )


def _answer_mask(
    vlm: VLM,
    output: dict[str, Any],
    row: int,
    length: int,
    text: str,
    spans: list[Span],
    pictures: list[Image.Image],
) -> Tensor:
    """(length,) bool: the tokens that overlap a span of the text, image tokens being longer after expansion."""
    mask = torch.zeros(length, dtype=torch.bool)
    if not spans:
        return mask
    replaced = output.get("text_replacement_offsets")
    if "offset_mapping" not in output or (pictures and not (replaced and len(replaced[row]) == len(pictures))):
        return _answer_mask_by_prefix(vlm, mask, text, spans, pictures)
    offsets = torch.tensor(output["offset_mapping"][row])
    moves = replaced[row] if pictures and replaced else []
    for start, end in spans:
        a, b = (at + _gained(moves, at) for at in (start, end))
        mask |= (offsets[:, 0] < b) & (offsets[:, 1] > a)
    return mask


def _gained(moves: list[dict[str, Any]], at: int) -> int:
    """How many characters the image placeholders before `at` grew by."""
    return max((move["new_span"][1] - move["span"][1] for move in moves if move["span"][1] <= at), default=0)


def _answer_mask_by_prefix(vlm: VLM, mask: Tensor, text: str, spans: list[Span], pictures: list[Image.Image]) -> Tensor:
    """For processors that do not say where text went: count the tokens of the text up to a span and up to its end."""
    token = getattr(vlm.processor, "image_token", None)
    for start, end in spans:
        places = []
        for prefix in (text[:start], text[:end]):
            shown = pictures[: prefix.count(token)] if token else pictures
            places.append(len(_process(vlm, [prefix], [shown])["input_ids"][0]) if prefix else 0)
        mask[places[0] : places[1]] = True
    return mask


def _stack(rows: list[Tensor], length: int, filler: int, left: bool) -> Tensor:
    out = rows[0].new_full((len(rows), length), filler)
    for i, row in enumerate(rows):
        if left:
            out[i, length - len(row) :] = row
        else:
            out[i, : len(row)] = row
    return out


def _join(tensors: list[Tensor]) -> Tensor:
    """Along the first dimension; the others are padded with zeros to the largest."""
    sizes = {tuple(tensor.shape[1:]) for tensor in tensors}
    if len(sizes) == 1:
        return torch.cat(tensors)
    largest = [max(size) for size in zip(*sizes, strict=True)]
    out = tensors[0].new_zeros((sum(len(tensor) for tensor in tensors), *largest))
    at = 0
    for tensor in tensors:
        out[(slice(at, at + len(tensor)), *(slice(0, n) for n in tensor.shape[1:]))] = tensor
        at += len(tensor)
    return out

"""A few samples through a model's processor: chat text, answer spans, one call, and what it returned per sample.

What a processor returns beside the text (pixel_values, image_grid_thw, image_sizes, ...) is told apart by its layout,
never by the family: tensors with a row for each picture, tensors with rows for each patch of a grid, and all others,
which are made by a call per sample. An answer's tokens are found by the characters that they cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapt_inf.data.images import decode_image, image_size
from adapt_inf.data.samples import Sample
from adapt_inf.models.chat import Rendered, Span, render
from adapt_inf.models.vlm import VLM

Images = Literal["own", "blank", "drop"]

MAX_PIXELS = 1 << 30  # of a stored picture; ingest has already held it to the user's own cap


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


def encode_chunk(vlm: VLM, samples: Sequence[Sample], images: Images, generation: bool) -> list[Encoded]:
    """The samples as unpadded tensors, in the order in which the data go; see `models.batches.encode`.

    Raises:
        SampleError, BadSample or what the processor raises: one of them cannot be read, or the processor does not take
            them together.
    """
    pictures = [_pictures(sample, images) for sample in samples]
    chats = [render(vlm, sample, with_images=images != "drop", generation=generation) for sample in samples]
    output = _process(vlm, chats, pictures)
    parts = split(output, [len(row) for row in pictures])
    if parts is not None:
        return [_encoded(vlm, output, i, parts[i], chats[i], pictures[i]) for i in range(len(samples))]
    vlm.encodes_singly = True
    outputs = [_process(vlm, [chat], [row]) for chat, row in zip(chats, pictures, strict=True)]
    return [
        _encoded(vlm, one, 0, _extras(one), chat, row) for one, chat, row in zip(outputs, chats, pictures, strict=True)
    ]


def _pictures(sample: Sample, images: Images) -> list[Image.Image]:
    if images == "drop":
        return []
    if images == "blank":
        return [Image.new("RGB", image_size(data)) for data in sample.images]
    return [decode_image(data, MAX_PIXELS) for data in sample.images]


def _process(vlm: VLM, chats: list[Rendered], pictures: list[list[Image.Image]]) -> dict[str, Any]:
    bos = vlm.tokenizer.bos_token
    texts = [chat.text for chat in chats]
    options: dict[str, Any] = {"padding": False}
    if bos is not None and texts[0].startswith(bos):
        options["add_special_tokens"] = False  # the template has written it
    if chats[0].suffix is not None:
        options["suffix"] = [chat.suffix for chat in chats]
    if vlm.tokenizer.is_fast:
        options |= {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
    output = dict(vlm.processor(text=texts, images=pictures if any(pictures) else None, **options))
    output.pop("labels", None)  # for a loss of the model's own, over all answers of a batch as one
    return output


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
        return join([item[None] for item in value])
    return torch.as_tensor(np.asarray(value))


def split(output: dict[str, Any], counts: list[int]) -> list[dict[str, Tensor]] | None:
    """The images' tensors per sample, or None where they are to be made by a call per sample.

    That is so where the layout does not say which rows are whose, and where it has a dimension more than (picture,
    channel, height, width): for tiles, which one call pads with zeros to the most that a picture of the chunk has.
    """
    total = sum(counts)
    if total == 0:
        return [{} for _ in counts]
    grid = output.get("image_grid_thw")
    patches = _tensor(grid).prod(dim=-1).tolist() if grid is not None else None
    rows: list[dict[str, Tensor]] = [{} for _ in counts]
    for name, tensor in _extras(output).items():
        if patches is not None and len(tensor) == sum(patches) != total:
            ends = np.cumsum([0, *counts])
            sizes = [sum(patches[ends[i] : ends[i + 1]]) for i in range(len(counts))]
        elif len(tensor) == total and 1 < tensor.ndim < 5:
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
    chat: Rendered,
    pictures: list[Image.Image],
) -> Encoded:
    ids = torch.tensor(output["input_ids"][row], dtype=torch.int64)
    return Encoded(
        ids=ids,
        answers=_answer_mask(vlm, output, row, len(ids), chat, pictures),
        sequences={name: torch.tensor(output[name][row]) for name in _sequence_names(output)},
        extras=extras,
        n_images=len(pictures),
    )


def _answer_mask(
    vlm: VLM,
    output: dict[str, Any],
    row: int,
    length: int,
    chat: Rendered,
    pictures: list[Image.Image],
) -> Tensor:
    """(length,) bool: the tokens that overlap a span of the text, image tokens being longer after expansion."""
    if chat.suffix is not None:
        return torch.tensor(output["token_type_ids"][row]) == 1  # a text pair's second part
    mask = torch.zeros(length, dtype=torch.bool)
    text, spans = chat.text, chat.spans
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
    """How many characters the image tokens before `at` grew by."""
    return max((move["new_span"][1] - move["span"][1] for move in moves if move["span"][1] <= at), default=0)


def _answer_mask_by_prefix(vlm: VLM, mask: Tensor, text: str, spans: list[Span], pictures: list[Image.Image]) -> Tensor:
    """For processors that do not say where text went: count the tokens of the text up to a span and up to its end."""
    token = getattr(vlm.processor, "image_token", None)
    for start, end in spans:
        places = []
        for prefix in (text[:start], text[:end]):
            shown = pictures[: prefix.count(token)] if token else pictures
            places.append(len(_process(vlm, [Rendered(prefix, [])], [shown])["input_ids"][0]) if prefix else 0)
        mask[places[0] : places[1]] = True
    return mask


def join(tensors: list[Tensor]) -> Tensor:
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

"""How well an answer is told without its image: the one signal of `image_grounding` that needs a second forward.

`blank`: the image's features are those of an image of zeros (after normalisation: the mean colour). Blank images of one
size are all the same, so samples whose chat is the same up to the end of their images also share every key and value of
the decoder up to there: that prefix runs once for all of them, and each sample costs only the tokens after its image.
Where a model's attention does not allow that (checked once against the whole forward, on the model itself), or an
image follows the first answer, the whole text runs with image features that are computed once and reused.
`drop`: the image's tokens are left out, which moves every later position. Text-only samples get nan and are never run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import ENCODE_CHUNK, Batch, Encoded, encode_readable, pad
from adapt_inf.models.precision import autocast
from adapt_inf.models.sharding import shares_weights
from adapt_inf.models.structure import decoder_layers, image_token
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.signals import AnswerPass

Without = Literal["blank", "drop"]

FEWEST_SHARING = 4  # samples with one prefix; for fewer, a forward of its own costs more than it saves
TRIED_ON = 4  # samples on which the shared prefix is compared with the whole forward
TOLERANCE = 1e-3  # nats, between the two: float32 agrees to 1e-6, another attention pattern is off by far more
ROUGH_TOLERANCE = 5e-2  # the same in bf16
NOTHING = 1e-20  # a pixel of zero to every sum, but some families take a picture of exact zeros for padding
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)


class WithoutImage:
    """Runs a model over samples without their images.

    Args:
        vlm: the model.
        answers: the pass over that model.
        without: `blank` or `drop`, see above.
        batch_size: samples in a batch.
    """

    def __init__(self, vlm: VLM, answers: AnswerPass, without: Without, batch_size: int) -> None:
        self._vlm = vlm
        self._answers = answers
        self._without = without
        self._batch_size = batch_size
        self._image_token = image_token(vlm)
        self.shares_prefix: bool | None = None  # not known until it was tried

    def __call__(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """Mean negative log-likelihood of each sample's answer without its images.

        Returns:
            (n,) nats, in the order of `samples`; nan for text-only ones and for those that the model cannot read.
        """
        rows: list[int] = []
        encoded: list[Encoded] = []
        pictured = [row for row, sample in enumerate(samples) if sample.images]
        for start in range(0, len(pictured), ENCODE_CHUNK):
            chunk = pictured[start : start + ENCODE_CHUNK]
            for row, item in zip(chunk, self.encode([samples[row] for row in chunk]), strict=True):
                if item is not None:
                    rows.append(row)
                    encoded.append(item)
        values = np.full(len(samples), np.nan)
        values[rows] = self.nll(encoded)
        return values

    def encode(self, samples: Sequence[Sample]) -> list[Encoded | None]:
        """Samples with images as tensors without what the images show; None for one that the model cannot read."""
        found = encode_readable(self._vlm, samples, images=self._without)
        return [_blank(item) if isinstance(item, Encoded) else None for item in found]

    def nll(self, encoded: Sequence[Encoded]) -> NDArray[np.float64]:
        """(n,) nats for samples from `encode`, in their order."""
        values = np.full(len(encoded), np.nan)
        groups: dict[Any, list[int]] = {}
        alone: list[int] = []
        for row, item in enumerate(encoded):
            end = self._end_of_prefix(item)
            if end and self.shares_prefix is not False:
                groups.setdefault(_key(item, end), []).append(row)
            else:
                alone.append(row)
        for group in groups.values():
            rows = np.array(group)
            if len(rows) < FEWEST_SHARING or not self._may_share(encoded, rows):
                alone += group
            else:
                self._shared(encoded, rows, values)
        self._whole(encoded, np.array(sorted(alone), dtype=np.int64), values)
        return values

    def _whole(self, encoded: Sequence[Encoded], rows: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        with reused_image_features(self._vlm):
            for batch in _by_length(encoded, rows, self._batch_size):
                values[batch] = self._answers(pad(self._vlm, [encoded[int(row)] for row in batch])).nll.numpy()

    def _end_of_prefix(self, item: Encoded) -> int:
        """How many tokens come before the first that differs once images are blank; 0 where none may be shared.

        The token that foretells the first answer token must not be among them.
        """
        images = (item.ids == self._image_token).nonzero() if self._image_token is not None else item.ids[:0]
        answers = item.answers.nonzero()
        if len(images) == 0 or len(answers) == 0:
            return 0
        end = int(images[-1]) + 1
        return end if end < int(answers[0]) else 0

    def _may_share(self, encoded: Sequence[Encoded], rows: NDArray[np.int64]) -> bool:
        """Try it once: some families let a prompt's tokens see what follows them, or number them by what is there."""
        if self.shares_prefix is None:
            some = rows[:TRIED_ON]
            ours, whole = np.full((2, len(encoded)), np.nan)
            self._whole(encoded, some, whole)
            inside: list[bool] = []
            layers = decoder_layers(self._vlm)
            enter = layers[0].register_forward_pre_hook(lambda *_: inside.append(True))
            leave = layers[-1].register_forward_hook(lambda *_: inside.clear())
            try:
                self._shared(encoded, some, ours)
            except REFUSALS:  # a family whose cache does not work like this says so in many ways
                if inside and shares_weights():
                    raise  # in the midst of a pass that the other processes go on with
                self.shares_prefix = False
            else:
                rough = next(self._vlm.model.parameters()).dtype != torch.float32 or self._vlm.device.type != "cpu"
                allowed = ROUGH_TOLERANCE if rough else TOLERANCE
                self.shares_prefix = bool(np.abs(ours - whole)[some].max() <= allowed)
            finally:
                enter.remove()
                leave.remove()
        return self.shares_prefix

    def _shared(self, encoded: Sequence[Encoded], rows: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """All `rows` have the same prefix: its keys and values once, then only what follows, batch by batch."""
        first = encoded[int(rows[0])]
        end = self._end_of_prefix(first)
        prefix = pad(self._vlm, [_cut(first, 0, end)])
        inner = self._vlm.network.base_model
        with torch.no_grad(), autocast(self._vlm.device):
            cache = inner(**prefix.inputs, use_cache=True).past_key_values
        # What follows an image is short, and small products waste a processor: as many tokens as a whole batch has, of
        # twice as many samples at most, since the prefix's keys and values are there for each of them.
        whole = sum(len(encoded[int(row)].ids) for row in rows)
        size = int(self._batch_size * min(whole / (whole - len(rows) * end), 2))
        for batch in _by_length(encoded, rows, size):
            rest = pad(self._vlm, [replace(_cut(encoded[int(row)], end, None), extras={}) for row in batch])
            own = copy.deepcopy(cache)
            own.batch_repeat_interleave(len(batch))
            seen = rest.attention_mask.new_ones(len(batch), end)
            inputs = rest.inputs | {
                "attention_mask": torch.cat([seen, rest.attention_mask], dim=1),
                "past_key_values": own,
            }
            shift = getattr(inner, "rope_deltas", None)
            if shift is not None:  # images that count fewer positions than tokens: the text goes on from there
                places = torch.arange(end, end + rest.input_ids.shape[1], device=seen.device) + shift[0]
                inputs["position_ids"] = places.expand(3, len(batch), -1)
            values[batch] = self._answers(Batch(inputs, rest.answers, rest.has_image)).nll.numpy()


def _blank(item: Encoded) -> Encoded:
    """The sample with pixels of zero, the one floating array that a processor makes of pictures; one number is kept."""
    extras = {
        name: value.new_full((), NOTHING).expand(value.shape) if value.is_floating_point() else value
        for name, value in item.extras.items()
    }
    return replace(item, extras=extras)


def _key(item: Encoded, end: int) -> tuple[Any, ...]:
    """What two blank samples must have in common to share the first `end` tokens."""
    parts = [item.ids[:end], *(item.sequences[name][:end] for name in sorted(item.sequences))]
    known = [value for name, value in sorted(item.extras.items()) if not value.is_floating_point()]
    shapes = tuple((name, tuple(value.shape)) for name, value in sorted(item.extras.items()))
    return (end, shapes, b"".join(value.numpy().tobytes() for value in (*parts, *known)))


def _cut(item: Encoded, start: int, stop: int | None) -> Encoded:
    sequences = {name: value[start:stop] for name, value in item.sequences.items()}
    return replace(item, ids=item.ids[start:stop], answers=item.answers[start:stop], sequences=sequences)


def _by_length(encoded: Sequence[Encoded], rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    order = rows[np.argsort([len(encoded[int(row)].ids) for row in rows], kind="stable")]
    for start in range(0, len(order), size):
        yield order[start : start + size]


@contextmanager
def reused_image_features(vlm: VLM) -> Iterator[None]:
    """Inside, the features of an image are those of the first image of the same size: for images that are all alike.

    A family whose features depend on more than the pixels (sizes before tiling, grids of patches) has its tower run for
    every batch: the same result, at the price of its forward.
    """
    network = vlm.network.base_model
    if not hasattr(network, "get_image_features"):
        yield
        return
    network.get_image_features = _reusing(network.get_image_features)
    try:
        yield
    finally:
        del network.get_image_features  # the class's own method shows again


def _reusing(compute: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], Any] = {}

    def get_image_features(pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        if pixel_values.ndim != 4 or any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            return compute(pixel_values, *args, **kwargs)
        key = (*pixel_values.shape[1:], pixel_values.dtype)
        if key not in known:
            known[key] = compute(pixel_values[:1], *args, **kwargs).pooler_output
        one = known[key]  # families give one tensor of all images, or a list with one for each
        every = one.expand(len(pixel_values), *one.shape[1:]) if isinstance(one, Tensor) else [*one] * len(pixel_values)
        return BaseModelOutputWithPooling(pooler_output=every)

    return get_image_features

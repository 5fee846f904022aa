"""How well an answer is told without its image: the one signal of `image_grounding` that needs a second forward.

`blank`: the image's features are those of an image of zeros (after normalisation: the mean colour). Where they depend
on nothing but the image's size they are computed once and reused, so the vision tower does not run again: the pass
costs the text decoder's forward alone. `drop`: the image's tokens are left out, which costs less still, and moves every
later position. Text-only samples get nan and are never run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import collate, length_buckets, token_lengths
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.signals import AnswerPass

Without = Literal["blank", "drop"]


@contextmanager
def blank_image_features(vlm: VLM) -> Iterator[None]:
    """Inside, every image has the features of an image of zeros of the same size.

    The model's own `get_image_features` runs once per size of image, on one image. A family whose features depend
    on more than the pixels (sizes before tiling, grids of patches) has its tower run on zeros for every batch: the same
    result, at the price of its forward.
    """
    network = vlm.network.base_model
    if not hasattr(network, "get_image_features"):
        yield  # the pixels of a blank batch are zeros already
        return
    network.get_image_features = _reusing(network.get_image_features)
    try:
        yield
    finally:
        del network.get_image_features  # the class's own method shows again


def _reusing(compute: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], Tensor] = {}

    def get_image_features(pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        if pixel_values.ndim != 4 or any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            return compute(torch.zeros_like(pixel_values), *args, **kwargs)
        key = (*pixel_values.shape[1:], pixel_values.dtype)
        if key not in known:
            output = compute(torch.zeros_like(pixel_values[:1]), *args, **kwargs)
            known[key] = torch.as_tensor(output.pooler_output[0])
        return BaseModelOutputWithPooling(pooler_output=[known[key]] * len(pixel_values))

    return get_image_features


def nll_without_image(
    vlm: VLM, answers: AnswerPass, samples: Sequence[Sample], without: Without, batch_size: int
) -> NDArray[np.float64]:
    """Mean negative log-likelihood of each sample's answer without its images, in nats.

    Args:
        vlm: the model.
        answers: the pass over that model.
        samples: n samples.
        without: `blank` or `drop`, see above.
        batch_size: samples in a batch.

    Returns:
        (n,) in the order of `samples`, nan for text-only ones.
    """
    values = np.full(len(samples), np.nan)
    with_image = np.flatnonzero([len(sample.images) > 0 for sample in samples])
    if not len(with_image):
        return values
    lengths = token_lengths(vlm, [samples[int(i)] for i in with_image])
    with blank_image_features(vlm) if without == "blank" else nullcontext():
        for bucket in length_buckets(lengths, batch_size):
            rows = with_image[bucket]
            batch = collate(vlm, [samples[int(i)] for i in rows], images=without)
            values[rows] = answers(batch).nll.numpy()
    return values

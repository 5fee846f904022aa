"""Frozen weights spread over the processes that train together, so that each GPU holds a part of them (FSDP).

Every decoder layer is put together from all processes as it is needed, in the forward and again in the backward pass,
and let go. The adapter's factors, the vision tower and the embeddings stay whole on each: they are small, and their
gradients are added up as without sharding, so what comes out is the same.
"""

from __future__ import annotations

import os

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from adapt_inf.errors import AdaptInfError
from adapt_inf.models.structure import decoder_layers
from adapt_inf.models.vlm import VLM


def is_asked_for() -> bool:
    """Whether accelerate's configuration, under which this process was begun, says FSDP.

    Raises:
        AdaptInfError: it says DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise AdaptInfError(
            "The configuration of `accelerate launch` asks for DeepSpeed, which no stage speaks.",
            "Let it say `distributed_type: MULTI_GPU`, or FSDP to spread the frozen weights; see docs/scale.md.",
        )
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def shard(vlm: VLM, count: int) -> None:
    """Spread the frozen weights of the decoder's layers over `count` processes, all of which call this.

    Each must then run the same number of forward and backward passes.
    """
    mesh = init_device_mesh(vlm.device.type, (count,))
    for layer in decoder_layers(vlm):
        trained = {weight for weight in layer.parameters() if weight.requires_grad}
        # Each layer is a root of its own, which FSDP would else leave whole between forward and backward.
        fully_shard(layer, mesh=mesh, ignored_params=trained, reshard_after_forward=True)

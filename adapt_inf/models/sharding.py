"""Weights spread over the processes that work together, so that each GPU holds a part of them (FSDP).

Every decoder layer is put together from all processes as it is needed, in the forward and again in the backward pass,
and let go. Adapters, the vision tower and the embeddings stay whole on each: they are small, and gradients of theirs
are added up as without sharding, so what comes out is the same. Until it is spread a model waits in main memory, where
processes share the pages of its file; no GPU ever holds more of it than its part and a layer.

Whether weights are spread is for accelerate's configuration to say: `distributed_type: FSDP`, or DeepSpeed with ZeRO's
third stage. ZeRO's first two spread gradients and optimiser state, which here are an adapter's, and ask for nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from adapt_inf.errors import AdaptInfError, ModelError
from adapt_inf.models.structure import decoder_layers
from adapt_inf.models.vlm import VLM

ZERO_3 = 3  # the stage of DeepSpeed's ZeRO that spreads the weights
_OFFLOAD = ("offload_param", "offload_optimizer")


def join() -> bool:
    """Meet the other processes of the launcher, if its configuration asks that they share the weights.

    Raises:
        AdaptInfError: it asks for what no stage does.
    """
    if not _is_asked_for():
        return False
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # or transformers gives no process but the first its weights
    # Whoever waits may wait for a part of large pictures to be read; that one is gone the launcher notices.
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=2))
    return True


def shares_weights() -> bool:
    """Whether this process has joined others to share weights with them."""
    return dist.is_initialized() and _is_asked_for()


def spread(vlm: VLM) -> VLM:
    """Where weights are shared, leave this process its part of those of the decoder's layers.

    All processes call this with a model loaded with `staged`, and then run the same passes; see `Turns`.

    Raises:
        ModelError: not every pass goes through every layer of it.
    """
    if not shares_weights():
        return vlm
    config = vlm.network.config.get_text_config()
    if getattr(config, "cross_attention_layers", None) or getattr(config, "layerdrop", 0):
        raise ModelError(
            str(vlm.base),
            "not every pass goes through all of its layers, so processes cannot share its weights",
            "Let accelerate's configuration say `distributed_type: MULTI_GPU`.",
        )
    mesh = init_device_mesh(vlm.device.type, (dist.get_world_size(),))
    for layer in decoder_layers(vlm):
        adapters = {weight for name, weight in layer.named_parameters() if "lora_" in name}
        # Each layer is a root of its own, which FSDP would else leave whole between forward and backward.
        root = fully_shard(layer, mesh=mesh, ignored_params=adapters, reshard_after_forward=True)
        # Roots have streams of their own, and CUDA would keep a layer's room for each: gather in the common one.
        root._set_unshard_async_op(True)
    for module in vlm.model.modules():
        for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False)):
            if not isinstance(tensor, DTensor):
                tensor.data = tensor.data.to(vlm.device)
    vlm.staged = False
    return vlm


class Turns:
    """Keeps processes that share weights in step, however many passes each has to run.

    Before a pass through the layers all tell one another whether they have one; whoever has none runs one that counts
    for nothing, until nobody has.

    Args:
        vlm: after `spread`.
    """

    def __init__(self, vlm: VLM) -> None:
        self._device = vlm.device
        self._working = True
        # Ahead of FSDP's own hook, which waits for the others.
        decoder_layers(vlm)[0].register_forward_pre_hook(self._announce, prepend=True)

    def see_out(self, idle: Callable[[], object]) -> None:
        """Run `idle`, which is to be one pass like those of the others, for as long as another works."""
        self._working = False
        while self._anyone_works():
            idle()

    def _announce(self, *_: Any) -> None:
        if self._working:
            self._anyone_works()

    def _anyone_works(self) -> bool:
        working = torch.tensor([int(self._working)], device=self._device)
        dist.all_reduce(working)
        return bool(working.item())


def _is_asked_for() -> bool:
    if _says("ACCELERATE_USE_FSDP"):
        _check_offload("fsdp_offload_params", "cpu" if _says("FSDP_OFFLOAD_PARAMS") else "none")
        return True
    if not _says("ACCELERATE_USE_DEEPSPEED"):
        return False
    zero = _zero()
    for what in _OFFLOAD:
        _check_offload(what, zero[what])
    return bool(zero["stage"] == ZERO_3)


def _check_offload(what: str, where: str) -> None:
    if where not in ("none", "auto"):
        raise AdaptInfError(
            f"accelerate's configuration has `{what}` on {where}, and no stage keeps anything off the GPU.",
            "Take that out of it; see docs/scale.md.",
        )


def _zero() -> dict[str, Any]:
    """stage, offload_param and offload_optimizer: of DeepSpeed's own file where accelerate's names one."""
    if path := os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        try:
            said = json.loads(Path(path).read_text(encoding="utf-8")).get("zero_optimization", {})
            return {"stage": int(said.get("stage", 0)), **{name: _device(said.get(name)) for name in _OFFLOAD}}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AdaptInfError(
                f"DeepSpeed's configuration {path} cannot be read ({error}).",
                "`deepspeed_config_file` in accelerate's file is to name it.",
            ) from error
    prefix = "ACCELERATE_DEEPSPEED_"
    return {
        "stage": int(os.environ.get(f"{prefix}ZERO_STAGE", "2")),  # accelerate's own default
        "offload_param": os.environ.get(f"{prefix}OFFLOAD_PARAM_DEVICE", "none"),
        "offload_optimizer": os.environ.get(f"{prefix}OFFLOAD_OPTIMIZER_DEVICE", "none"),
    }


def _device(offload: dict[str, Any] | None) -> str:
    return str((offload or {}).get("device", "none"))


def _says(name: str) -> bool:
    return os.environ.get(name, "").lower() == "true"

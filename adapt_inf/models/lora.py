"""Put a LoRA adapter on a model, or take up the parent's and go on with it.

Only linear maps of the text decoder and, if asked, of the projector between vision and text are adapted; never an
output head that shares its weights with the embedding, since adapting one would pull the two apart. A lineage keeps the
shape of its first adapter: a later round's weights are the parent's weights, further trained.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from adapt_inf.config import Train
from adapt_inf.errors import AdaptInfError, ModelError
from adapt_inf.models.vlm import VLM

PROJECTOR = re.compile(
    r"(^|[._])(projector|connector|merger|aligner|multi_modal_projector|modality_projection)([._]|$)"
)

MEND_TARGETS = (
    "Set train.targets in params.yaml to text, text+projector, or a regular expression for whole names of its modules."
)


def with_adapter(vlm: VLM, knobs: Train, seed: int) -> VLM:
    """The model with an adapter that takes gradients: the one that it has, or a new one drawn from `seed`.

    A new adapter changes nothing yet, since one of its factors is zero (Hu et al. 2021, arXiv 2106.09685).

    Raises:
        AdaptInfError: the parent's adapter has another rank, scale or other targets than `knobs`.
        ModelError: `train.targets` matches no linear map.
    """
    names = target_modules(vlm, knobs.targets)
    if vlm.adapted:
        _check_shape(vlm, knobs, names)
        model = vlm.model
    else:
        config = LoraConfig(
            r=knobs.rank,
            lora_alpha=knobs.alpha,
            lora_dropout=knobs.dropout,
            target_modules=names,
            task_type=None,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = get_peft_model(vlm.model, config)
    model.peft_config[model.active_adapter].lora_dropout = knobs.dropout
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_dropout[model.active_adapter] = nn.Dropout(knobs.dropout) if knobs.dropout else nn.Identity()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    model.eval()
    return replace(vlm, model=model, adapted=True)


def target_modules(vlm: VLM, targets: str) -> list[str]:
    """Names of the linear maps that `train.targets` means: text, text+projector, or a regular expression.

    A regular expression must match a module's whole name, as in PEFT.
    """
    network = vlm.network
    linears = {
        name: layer
        for name, module in network.named_modules()
        if isinstance(layer := _base_layer(module), nn.Linear) and not re.search(r"\.(base_layer|lora_\w+)\b", name)
    }
    if targets in ("text", "text+projector"):
        decoder = vlm.decoder()
        inside = {id(module) for module in decoder.modules()}
        names = [name for name, module in linears.items() if id(module) in inside]
        if targets == "text+projector":
            names += [name for name in linears if PROJECTOR.search(name) and name not in names]
    else:
        try:
            pattern = re.compile(targets)
        except re.error as error:
            raise ModelError(
                str(vlm.base), f"train.targets {targets!r} is no regular expression ({error})", MEND_TARGETS
            ) from error
        names = [name for name in linears if pattern.fullmatch(name)]
    head = network.get_output_embeddings()
    if head is not None and head.weight is network.get_input_embeddings().weight:
        names = [name for name in names if linears[name] is not head]
    if not names:
        raise ModelError(str(vlm.base), f"train.targets {targets!r} matches none of its linear maps", MEND_TARGETS)
    return sorted(names)


def _base_layer(module: nn.Module) -> nn.Module:
    return module.get_base_layer() if isinstance(module, LoraLayer) else module


def _check_shape(vlm: VLM, knobs: Train, names: list[str]) -> None:
    config: Any = vlm.model.peft_config[vlm.model.active_adapter]
    adapted = sorted(name for name, module in vlm.network.named_modules() if isinstance(module, LoraLayer))
    for key, now, wanted in (
        ("rank", config.r, knobs.rank),
        ("alpha", config.lora_alpha, knobs.alpha),
        ("targets", adapted, names),
    ):
        if now != wanted:
            what = "other linear maps" if key == "targets" else f"{now}, not {wanted}"
            raise AdaptInfError(
                f"train.{key} does not fit the parent's adapter, which has {what}.",
                "A lineage keeps the shape of its first adapter: set it back, or start from base.",
            )

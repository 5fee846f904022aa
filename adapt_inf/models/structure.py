"""Where things are inside a vision-language model, told from its structure, never from a family's name."""

from __future__ import annotations

import inspect

from torch import nn

from adapt_inf.errors import ModelError
from adapt_inf.models.vlm import VLM


def decoder_layers(vlm: VLM) -> nn.ModuleList:
    """The layers of a model's text decoder: the longest ModuleList in it. The vision tower stands outside.

    Raises:
        ModelError: there is none.
    """
    lists = [module for module in vlm.decoder().modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise ModelError(str(vlm.base), "its text decoder has no list of layers")
    return max(lists, key=len)


def feed_forward(layer: nn.Module) -> nn.Module | None:
    """The part of a decoder layer that looks at one position at a time: the child that takes one argument and has maps.

    None where no child, or more than one, is like that. (A norm takes one argument, but has no linear map; attention
    needs more than the hidden states.)
    """
    found = [
        child
        for child in layer.children()
        if len(inspect.signature(child.forward).parameters) == 1
        and any(isinstance(module, nn.Linear) for module in child.modules())
    ]
    return found[0] if len(found) == 1 else None


def image_token(vlm: VLM) -> int | None:
    """The id of the token that stands for a piece of an image, where the configuration tells."""
    config = vlm.network.config
    for name in ("image_token_id", "image_token_index"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return None

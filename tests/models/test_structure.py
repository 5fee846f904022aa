"""What the structure of a model tells, on models of a few shapes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adapt_inf.errors import ModelError
from adapt_inf.models.structure import decoder_layers, feed_forward, image_token
from adapt_inf.models.vlm import VLM


def test_a_llava(vlm: VLM) -> None:
    layers = decoder_layers(vlm)
    assert len(layers) == 4
    assert feed_forward(layers[0]) is layers[0].mlp
    assert image_token(vlm) == vlm.tokenizer.convert_tokens_to_ids("<image>")


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)


def test_two_parts_of_one_argument_cannot_be_told_apart() -> None:
    assert feed_forward(TwoParts()) is None
    assert feed_forward(nn.Identity()) is None


def test_a_decoder_without_layers(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VLM, "decoder", lambda self: nn.Linear(2, 2))
    with pytest.raises(ModelError, match="no list of layers"):
        decoder_layers(vlm)


def test_a_configuration_that_names_no_image_token() -> None:
    bare = SimpleNamespace(config=SimpleNamespace(vocab_size=9))
    assert image_token(VLM(bare, None, torch.device("cpu"), False, Path("bare"))) is None

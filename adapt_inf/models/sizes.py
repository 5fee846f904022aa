"""How large a model is, and what a pass over a sample costs it: operations, and memory beside the weights.

Known from a number of parameters or from a folder's files, without loading anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from adapt_inf.config import Params
from adapt_inf.errors import AdaptInfError
from adapt_inf.selection.scores import NLL_WITHOUT_IMAGE, available, resolve


@dataclass(frozen=True)
class Shape:
    """What a model's cost goes by.

    Attributes:
        parameters: of all of it.
        layers, width, inner: of its text decoder; `inner` is the width of the feed-forward part.
    """

    parameters: float
    layers: int
    width: int
    inner: int

    def adapter(self, rank: int) -> float:
        """Parameters of LoRA factors on every linear map of the decoder."""
        return float(rank * self.layers * (8 * self.width + 3 * (self.width + self.inner)))


def shape_of(text: str) -> Shape:
    """The shape of a model: `7b`, `350m`, or a folder of a Hugging Face model.

    By a number of parameters alone, the shape is that of a Llama of that size: a layer of width h has 12 h^2
    parameters, and h is 128 times the number of layers.

    Raises:
        AdaptInfError: it is neither.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([mMbB])", text):
        parameters = float(found[1]) * (1e6 if found[2] in "mM" else 1e9)
        layers = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
        return Shape(parameters, layers, 128 * layers, int(2.7 * 128 * layers))
    folder = Path(text)
    try:
        # What a file leaves out, as those of LLaVA 1.5 do, is the family's default.
        decoder = AutoConfig.from_pretrained(text, local_files_only=True, trust_remote_code=False).get_text_config()
        weights = sorted(folder.glob("*.safetensors"))
        counts = [math.prod(tensor) for file in weights for tensor in _tensors(file)]
        layers, width, inner = decoder.num_hidden_layers, decoder.hidden_size, decoder.intermediate_size
        return Shape(float(sum(counts)), layers, width, inner)
    except (OSError, KeyError, ValueError, AttributeError, SafetensorError) as error:
        raise AdaptInfError(
            f"`{text}` is no model whose size can be told.",
            "Give a number of parameters, such as 7b or 350m, or the folder of a model with config.json.",
        ) from error


def _tensors(file: Path) -> list[list[int]]:
    with safe_open(file, framework="numpy") as weights:
        return [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118 (it is no mapping)


def _forward(params: Params) -> float:
    return 2.0


def _score(params: Params) -> float:
    select = params.select
    one_more = {select.strategy} - {*select.scores} & {*available()}
    needs = {need for score in resolve([*select.scores, *one_more]) for need in score.needs}
    return 2.0 if NLL_WITHOUT_IMAGE in needs else 0.0


def _sketch(params: Params) -> float:
    return 2.0 if params.sketch.layers == "last" else 3.0


def _train(params: Params) -> float:
    return 6.0 if params.train.gradient_checkpointing else 4.0


OPERATIONS: dict[str, Callable[[Params], float]] = {
    "sketch": _sketch,
    "score": _score,
    "train": _train,
    "evaluate": _forward,
}
"""For a parameter and a token. A forward pass takes 2, gradients of the inputs 2 more, those of the weights another 2,
which LoRA does without. A sketch goes back through the layers above the chosen one: half of them, or none. An answer is
generated token by token, which keeps a GPU half busy: each counts twice."""


def activations(stage: str, params: Params, model: Shape, tokens: float) -> float:
    """Bytes beside the weights in bf16, by the formulas of docs/models.md; float32 takes twice as much."""
    h, i, layers = model.width, model.inner, model.layers
    if stage == "train":
        batch = params.train.micro_batch or params.train.batch_size
        kept = 2 * h * layers + 28 * h + 8 * i if params.train.gradient_checkpointing else layers * (28 * h + 8 * i)
        size = batch * tokens * kept + 16 * model.adapter(params.train.rank)
    elif stage == "evaluate":
        size = params.evaluate.batch_size * (tokens + params.evaluate.max_new_tokens) * 4 * layers * h
    elif stage == "sketch":
        above = 1 if params.sketch.layers == "last" else layers / 2
        size = params.sketch.batch_size * tokens * ((above + 1) * (16 * h + 6 * i) + 4 * (h + i))
    else:
        size = params.score.batch_size * tokens * 8 * h
    return float(size)

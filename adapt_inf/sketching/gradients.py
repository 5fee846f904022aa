"""Sketches of exact per-sample gradients, from one batched forward and backward.

For a linear map with input a_t and output gradient d_t the gradient of sample x is G = sum_t d_t a_t^T, so hooks that
keep a and d of each chosen linear map give every sample's gradient from the batch's backward (Goodfellow 2015, arXiv
1510.01799). All parameters are frozen and the outputs of the lowest chosen maps are made the leaves of the graph:
nothing below them is kept or propagated through, and no weight gradient of the batch is ever formed. That is about half
the cost of a plain forward and backward for a middle layer.

G goes straight into a CountSketch and its squared norm, a few output rows at a time: the block stays in the processor's
cache, and no batch x D array exists however wide the layer. How many rows, and whether the sketch keeps its table of
places, follows from the sizes and a memory budget (`Sketcher.describe` says what was chosen).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from adapt_inf.errors import ModelError
from adapt_inf.models.batches import Batch
from adapt_inf.models.precision import precision
from adapt_inf.models.structure import decoder_layers
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.projections import CountSketch
from adapt_inf.sketching.signals import AnswerPass, Signals
from adapt_inf.sketching.store import Features

BLOCK_BYTES = 2**20  # of gradients: fits a core's second-level cache (the best of 64 KB .. 8 MB)
MEMORY_MB = 1024  # for the sketch's own arrays, where nothing else is said

DIFFERENTIABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # not packed integers, nor 8-bit floats
NOTHING_THERE = {
    "lora": (
        "no adapter",
        "Set `sketch.params` to auto or full, or `sketch.layers` to layers that the adapter lies on.",
    ),
    "full": (
        "no linear map",
        "Set `sketch.layers` to others; of a model whose maps are quantised, name a copy in bf16 or fp32.",
    ),
}


@dataclass(frozen=True)
class Plan:
    """Which linear maps are sketched, in the order of their coordinates."""

    layers: tuple[int, ...]
    params: Literal["lora", "full"]
    names: tuple[str, ...]
    modules: tuple[nn.Linear, ...]

    @property
    def coordinates(self) -> int:
        """D, the length of the concatenated gradient."""
        return sum(module.weight.numel() for module in self.modules)


def choose_layers(layers: Literal["middle", "last"] | list[int], count: int) -> tuple[int, ...]:
    """Indices of the chosen layers among `count`, ascending; a negative index counts from the end.

    Raises:
        ValueError: an index outside.
    """
    if layers == "middle":
        return (count // 2,)
    if layers == "last":
        return (count - 1,)
    indices = sorted({index + count if index < 0 else index for index in layers if isinstance(index, int)})
    if not indices or indices[0] < 0 or indices[-1] >= count:
        raise ValueError(f"layers {layers} of a decoder of {count} layers")
    return tuple(indices)


def make_plan(vlm: VLM, layers: Literal["middle", "last"] | list[int], params: Literal["auto", "lora", "full"]) -> Plan:
    """Which linear maps to sketch.

    `lora` takes the active adapter's factors A and B, `full` the weights under them, `auto` lora where the chosen
    layers have an adapter.

    Raises:
        ModelError: no such layer, no linear map in it, `lora` without an adapter there, or weights that are packed.
    """
    stack = decoder_layers(vlm)
    try:
        indices = choose_layers(layers, len(stack))
    except ValueError as error:
        raise ModelError(
            str(vlm.base),
            f"sketch.layers asks for {error}",
            f"Set it to middle, last, or numbers from 0 to {len(stack) - 1} (from -1 for the last to {-len(stack)}).",
        ) from error
    factors: list[tuple[str, nn.Linear]] = []
    weights: list[tuple[str, nn.Linear]] = []
    for index in indices:
        lora: dict[str, nn.Linear] = {}
        for name, module in stack[index].named_modules():
            if isinstance(module, LoraLayer):
                for side in ("lora_A", "lora_B"):
                    for adapter, factor in getattr(module, side).items():
                        lora[f"{name}.{side}.{adapter}"] = factor
                        if adapter in module.active_adapters:
                            factors.append((f"{index}.{name}.{side}", factor))
        for name, module in stack[index].named_modules():
            if isinstance(module, nn.Linear) and name not in lora:
                weights.append((f"{index}.{name.removesuffix('.base_layer')}", module))
    chosen: Literal["lora", "full"] = "lora" if params == "lora" or (params == "auto" and factors) else "full"
    maps = factors if chosen == "lora" else weights
    if not maps:
        what, mend = NOTHING_THERE[chosen]
        raise ModelError(str(vlm.base), f"there is {what} in layers {list(indices)} of its text decoder", mend)
    for name, module in maps:
        if module.weight.dtype not in DIFFERENTIABLE:
            kind = str(module.weight.dtype).removeprefix("torch.")
            raise ModelError(
                str(vlm.base),
                f"layer {name} of its text decoder is quantised ({kind}), so its weights have no gradient",
                "Name a copy in bf16 or fp32, or set `sketch.params: lora` where an adapter lies on these layers.",
            )
    names, modules = zip(*maps, strict=True)
    return Plan(layers=indices, params=chosen, names=names, modules=modules)


class Capture:
    """Inputs and output gradients of linear maps, from a forward and a backward inside `recording`."""

    def __init__(self, modules: tuple[nn.Linear, ...]) -> None:
        self.modules = modules
        self._inputs: list[list[Tensor]] = []
        self._gradients: list[dict[int, Tensor]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        self._inputs = [[] for _ in self.modules]
        self._gradients = [{} for _ in self.modules]
        handles = [module.register_forward_hook(self._hook(index)) for index, module in enumerate(self.modules)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, index: int) -> Any:
        inputs, gradients = self._inputs[index], self._gradients[index]

        def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            call = len(inputs)
            inputs.append(args[0].detach())
            if not output.requires_grad:  # nothing below is differentiable: this output is a leaf of the graph
                output.requires_grad_(True)

            def keep_gradient(gradient: Tensor) -> None:
                gradients[call] = gradient.detach()

            output.register_hook(keep_gradient)

        return keep

    def pairs(self, index: int, batch: int) -> list[tuple[Tensor, Tensor]]:
        """(d, a) of each call of a map: float32 (batch, T, out) and (batch, T, in)."""
        pairs = []
        for call, gradient in sorted(self._gradients[index].items()):
            given = self._inputs[index][call]
            pairs.append(
                (
                    gradient.float().reshape(batch, -1, gradient.shape[-1]),
                    given.float().reshape(batch, -1, given.shape[-1]),
                )
            )
        return pairs

    def clear(self) -> None:
        self._inputs = []
        self._gradients = []


@dataclass(frozen=True)
class Sketched:
    """What one batch of B samples yields."""

    sketches: Tensor  # (B, dim) float32 on the CPU, not normalised
    grand: Tensor  # (B,) float64: the L2 norm of the exact gradient
    signals: Signals
    hidden: Tensor | None  # (B, width) float32: mean hidden state of the answer tokens, where asked for


class Sketcher:
    """Sketches batches of samples under one model.

    Args:
        vlm: the model. Its parameters are frozen.
        layers: `sketch.layers` of params.yaml.
        params: `sketch.params`.
        dim: length of a sketch.
        seed: of the CountSketch.
        hidden: whether to give the mean hidden state of the answer tokens after the highest chosen layer, too.
        memory_mb: for blocks of gradients and the CountSketch's places together.

    Raises:
        ModelError: the model has no such layers or maps.
    """

    def __init__(
        self,
        vlm: VLM,
        layers: Literal["middle", "last"] | list[int] = "middle",
        params: Literal["auto", "lora", "full"] = "auto",
        dim: int = 2048,
        seed: int = 0,
        *,
        hidden: bool = False,
        memory_mb: int = MEMORY_MB,
    ) -> None:
        self.plan = make_plan(vlm, layers, params)
        self._vlm = vlm
        self.dim = dim
        self._answers = AnswerPass(vlm)
        self._capture = Capture(self.plan.modules)
        stack = decoder_layers(vlm)
        self._whole_layers = self.plan.layers[-1] == len(stack) - 1  # then hooks read the last layer
        self._hidden_of = stack[self.plan.layers[-1]] if hidden else None
        device = self.plan.modules[0].weight.device
        self._sketch = CountSketch(self.plan.coordinates, dim, seed, device, table_bytes=memory_mb * 2**20 // 2)
        room = memory_mb * 2**20 // 4  # for a block; as much again for what is made of it
        self._block_bytes = min(BLOCK_BYTES, room) if device.type == "cpu" else room

    @property
    def dims(self) -> dict[Features, int]:
        """Length of the vectors by kind of features."""
        dims: dict[Features, int] = {"gradient": self.dim}
        if self._hidden_of is not None:
            dims["hidden"] = self._vlm.network.get_input_embeddings().weight.shape[1]
        return dims

    def describe(self) -> dict[str, Any]:
        """What is sketched and how, for sketch.json."""
        return {
            "layers": list(self.plan.layers),
            "params": self.plan.params,
            "plan": {
                "coordinates": self.plan.coordinates,
                "block_bytes": self._block_bytes,
                "precision": precision(self._vlm.device),
                "places": "kept" if self._sketch.keeps_places else "hashed again for every batch",
                "maps": [
                    {"name": name, "shape": list(module.weight.shape)}
                    for name, module in zip(self.plan.names, self.plan.modules, strict=True)
                ],
            },
        }

    def __call__(self, batch: Batch) -> Sketched:
        """Sketches, gradient norms and signals of a batch. A sample without answer tokens has a sketch of zeros."""
        signals, hidden = self.differentiate(batch)
        accumulator = self._sketch.accumulator(len(batch))
        squares = torch.zeros(len(batch), dtype=torch.float64, device=accumulator.device)
        for start, block in self.gradient_blocks(len(batch)):
            self._sketch.add(accumulator, start, block)
            squares += torch.linalg.vector_norm(block, dim=1).double().square()
        self._capture.clear()
        sketches = self._sketch.finish(accumulator).cpu()
        return Sketched(sketches=sketches, grand=squares.sqrt().cpu(), signals=signals, hidden=hidden)

    def differentiate(self, batch: Batch) -> tuple[Signals, Tensor | None]:
        """The forward and backward of a batch: `gradient_blocks` gives its gradients until the next one."""
        states: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            states.append((output[0] if isinstance(output, tuple) else output).detach())

        handle = self._hidden_of.register_forward_hook(keep) if self._hidden_of is not None else None
        try:
            with self._capture.recording():
                signals = self._answers(batch, backward=True, whole_layers=self._whole_layers)
        finally:
            if handle is not None:
                handle.remove()
        return signals, _mean_over(batch.answers, states[0]).cpu() if states else None

    def gradient_blocks(self, batch: int) -> Iterator[tuple[int, Tensor]]:
        """The captured gradients, concatenated over the maps, as (first coordinate, (batch, m) float32 block)."""
        first = 0
        for index, module in enumerate(self.plan.modules):
            height, width = module.weight.shape
            pairs = [(d.transpose(1, 2), a) for d, a in self._capture.pairs(index, batch)]
            rows = max(1, self._block_bytes // (4 * batch * width))
            for row in range(0, height if pairs else 0, rows):
                block = torch.bmm(pairs[0][0][:, row : row + rows], pairs[0][1])
                for d, a in pairs[1:]:
                    block += torch.bmm(d[:, row : row + rows], a)
                yield first + row * width, block.reshape(batch, -1)
            first += height * width


def _mean_over(answers: Tensor, states: Tensor) -> Tensor:
    """(B, width) float32 mean of (B, T, width) states at the answer tokens; zeros for a sample without any."""
    weights = answers.float() / answers.sum(1, keepdim=True).clamp_min(1)
    return torch.einsum("bt,btw->bw", weights, states.float())

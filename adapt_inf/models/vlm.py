"""A vision-language model as the rounds pass it on: a Hugging Face folder, or a LoRA adapter that names its base.

Everything goes through the Auto classes, so any image-text-to-text family loads the same way; no remote code,
safetensors only. A base is a plain Hugging Face folder; an adapter folder holds the PEFT weights, the processor and
`model.json`, which names the base by a relative path, so a project may be moved. Loading costs one read of the weights.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from adapt_inf.errors import ModelError
from adapt_inf.files import folder_digest, read_json, write_json, write_whole
from adapt_inf.models.precision import make_repeatable

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_CARD = "model.json"

# What transformers, peft and safetensors raise on folders that are damaged, incomplete or of another kind.
LOAD_FAULTS = (
    OSError,
    ValueError,
    KeyError,
    ImportError,
    AttributeError,
    RuntimeError,
    TypeError,
    SafetensorError,
)


MEND_WEIGHTS = "Install what it asks for, or name a copy of the model in bf16 or fp32."
MEND_PACKAGE = "Install what it asks for: the extra `torchvision` of adapt-inf brings torchvision and num2words."
MEND_PROCESSOR = (
    "Copy its processor_config.json or preprocessor_config.json, and its tokenizer's files, into the folder."
)
MEND_BASE = "Bring it back with `dvc checkout`, or start a project from the other base."
VERIFIED_BYTES = 1 << 30  # of a base: up to here hashing it at each load takes about a second


@dataclass
class VLM:
    """A model with its processor, ready to run.

    Attributes:
        model: a transformers image-text-to-text model, a PeftModel around it when `adapted`; in eval mode.
        processor: its processor: image processor, tokenizer, chat template.
        device: where the model stands and batches must go.
        adapted: whether a LoRA adapter is on it.
        base: the folder of the base weights.
        control_tokens: what models/chat.py keeps out of samples' own text; filled in at the first use.
        encodes_singly: whether models/batches.py has found that the processor takes one sample at a time.
        staged: whether its weights are still in main memory, for `models.sharding.spread` to bring to `device`.
    """

    model: Any
    processor: Any
    device: torch.device
    adapted: bool
    base: Path
    control_tokens: re.Pattern[str] | None = None
    encodes_singly: bool = False
    staged: bool = False

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def network(self) -> Any:
        """The transformers model itself, also where PEFT stands around it."""
        return self.model.get_base_model() if self.adapted else self.model

    @property
    def max_tokens(self) -> int | None:
        """The longest sequence that the text decoder was made for; None where its configuration does not say."""
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None)

    def decoder(self) -> nn.Module:
        """The text decoder (with `layers` and `norm`), whatever the family calls it."""
        decoder = self.network.get_decoder()
        # Some families hand out the multimodal model here, whose text part is one level further down.
        return getattr(decoder, "language_model", decoder)


def pick_device(device: str = "auto") -> torch.device:
    """`auto`: the first GPU where there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_vlm(folder: Path, *, device: str = "cpu", trainable: bool = False, staged: bool = False) -> VLM:
    """Load a base model or an adapter together with its base.

    Args:
        folder: a Hugging Face folder, or one that `save_adapter` wrote (told apart by adapter_config.json).
        device: a torch device, or `auto`.
        trainable: whether the adapter's weights take gradients. The base's never do.
        staged: leave the weights in main memory, as their file has them in pages.

    Raises:
        ModelError: something is missing, or no image-text-to-text model.
    """
    transformers_logging.disable_progress_bar()
    place = pick_device(device)
    make_repeatable(place)
    adapted = (folder / ADAPTER_CONFIG).is_file()
    base = _base_of(folder) if adapted else folder
    network, processor = load_base(base, place, staged=staged)
    model: Any = network
    if adapted:
        try:
            model = PeftModel.from_pretrained(network, str(folder), is_trainable=trainable, torch_device="cpu")
        except LOAD_FAULTS as error:
            raise ModelError(str(folder), f"its adapter does not load ({first_line(error)})") from error
    vlm = VLM(model, processor, place, adapted, base, staged=staged)
    _settle(vlm)
    return vlm


def add_adapter(vlm: VLM, folder: Path, name: str) -> None:
    """Load the adapter in `folder` beside the one that `vlm` has, over the same base; the own one stays in use.

    Raises:
        ModelError: it does not load.
    """
    try:
        vlm.model.load_adapter(str(folder), adapter_name=name, torch_device="cpu")
    except LOAD_FAULTS as error:
        raise ModelError(str(folder), f"its adapter does not load ({first_line(error)})") from error
    _settle(vlm)


def _settle(vlm: VLM) -> None:
    if not vlm.staged:
        vlm.model.to(vlm.device)
    vlm.model.eval()


def load_base(folder: Path, place: torch.device, *, complete: bool = False, staged: bool = False) -> tuple[Any, Any]:
    """The frozen model and the processor of a Hugging Face folder; float32 on a CPU, as stored on a GPU.

    Args:
        folder: of the model.
        place: where it is to run.
        complete: see that no weight is missing, for a look at it alone: they stay as stored, in their file's pages.
        staged: leave it in main memory.

    Raises:
        ModelError: it does not load, or (`complete`) its weights leave some of the model at random.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(str(folder), "there is no config.json in it")
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            str(folder),
            output_loading_info=True,
            dtype=torch.float32 if place.type == "cpu" and not complete else "auto",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        )
    except ImportError as error:
        raise ModelError(str(folder), first_line(error), MEND_WEIGHTS) from error
    except LOAD_FAULTS as error:
        raise ModelError(str(folder), first_line(error)) from error
    processor = _load_processor(folder)
    if complete and info["missing_keys"]:
        raise ModelError(str(folder), f"its weights lack {sorted(info['missing_keys'])[0]} and leave it at random")
    model.requires_grad_(False)
    return model if staged else model.to(place), processor


def load_reader(folder: Path) -> VLM:
    """A base without its weights: enough to turn samples into tensors, or to learn that it cannot read them.

    Raises:
        ModelError: its configuration or processor does not load.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except LOAD_FAULTS as error:
        raise ModelError(str(folder), first_line(error)) from error
    return VLM(SimpleNamespace(config=config), _load_processor(folder), torch.device("cpu"), False, folder)


def _load_processor(folder: Path) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except ImportError as error:
        raise ModelError(str(folder), first_line(error), MEND_PACKAGE) from error
    except LOAD_FAULTS as error:
        raise ModelError(str(folder), f"its processor does not load ({first_line(error)})", MEND_PROCESSOR) from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ModelError(str(folder), "its processor has no image processor or no tokenizer", MEND_PROCESSOR)
    return processor


def describe(vlm: VLM) -> dict[str, Any]:
    """What kind of model it is: the family's name and how many parameters it has, an adapter's not among them."""
    network = vlm.network
    own = sum(weight.numel() for name, weight in network.named_parameters() if "lora_" not in name)
    return {"model_type": str(network.config.model_type), "parameters": own}


def _base_of(folder: Path) -> Path:
    """The base that the adapter's model.json names, if it is still the one that the adapter was trained on.

    Its size is compared always, its digest up to VERIFIED_BYTES: hashing the weights of a large model would take as
    long as loading them.
    """
    path = folder / MODEL_CARD
    if not path.is_file():
        raise ModelError(str(folder), f"an adapter without {MODEL_CARD}, so its base is unknown")
    card = read_json(path)
    base = Path(os.path.normpath(folder / card["base"]))
    if not base.is_dir():
        raise ModelError(str(folder), f"its base {base} is not there", MEND_BASE)
    size = _folder_bytes(base)
    if size != card["base_bytes"] or (size <= VERIFIED_BYTES and folder_digest(base) != card["base_digest"]):
        raise ModelError(str(folder), f"its base {base} is not the one that it was trained on", MEND_BASE)
    return base


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def save_adapter(vlm: VLM, folder: Path, home: Path | None = None) -> None:
    """Write adapter, processor and model.json into `folder`; the same weights give the same bytes.

    Args:
        vlm: an adapted model.
        folder: where to write.
        home: where the folder will stand in the end, if it is moved: the path to the base is relative to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = Path(os.path.relpath(vlm.base, home or folder)).as_posix()
    weights = {
        name: value.detach().contiguous().cpu()
        for name, value in sorted(get_peft_model_state_dict(vlm.model, save_embedding_layers=False).items())
    }
    write_whole(folder / ADAPTER_WEIGHTS, lambda part: save_file(weights, part, metadata={"format": "pt"}))
    write_json(folder / ADAPTER_CONFIG, _adapter_config(vlm, base))
    vlm.processor.save_pretrained(str(folder))
    card = {"base": base, "base_bytes": _folder_bytes(vlm.base), "base_digest": folder_digest(vlm.base)}
    write_json(folder / MODEL_CARD, card)


def _adapter_config(vlm: VLM, base: str) -> dict[str, Any]:
    """The PEFT configuration with its sets in order and no path of this machine."""
    config = vlm.model.peft_config[vlm.model.active_adapter].to_dict()
    config["base_model_name_or_path"] = base
    config["inference_mode"] = True
    return json.loads(json.dumps(dict(sorted(config.items())), default=_plain))


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else getattr(value, "value", str(value))


def first_line(error: BaseException) -> str:
    """What a library's exception says first, as one clause of ours."""
    text = str(error).strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".") if text else type(error).__name__

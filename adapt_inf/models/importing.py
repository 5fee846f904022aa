"""Bring the model that a lineage starts from into a project: a copy of what loading it needs, checked before use.

Only weights (safetensors), configuration, tokenizer and template files are copied: no code and no pickle comes along.
The check loads the model once and turns one picture question into tensors, so a model that the rounds could not use is
refused here, in one line.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from adapt_inf.data.samples import Sample
from adapt_inf.errors import ModelError, SampleError
from adapt_inf.files import folder_digest
from adapt_inf.models.batches import encode
from adapt_inf.models.chat import MEND_TEMPLATE, NO_TEMPLATE, chat_template
from adapt_inf.models.vlm import ADAPTER_CONFIG, LOAD_FAULTS, VLM, first_line, load_base, pick_device

SUFFIXES = (".json", ".safetensors", ".jinja", ".txt", ".model", ".tiktoken")
HUB_FAULTS = (HfHubHTTPError, HFValidationError, OSError, ValueError)


def import_model(source: str, out: Path) -> dict[str, Any]:
    """Copy a model into `out` as a plain Hugging Face folder.

    Args:
        source: a local folder, or the id of a model on the Hugging Face hub.
        out: the folder to make; left absent when the model is refused.

    Returns:
        {"source", "model_type", "parameters", "digest"}: `source` is the id on the hub, None for a folder; `digest` the
        SHA-256 over names and contents of the files.

    Raises:
        ModelError: `source` is not there, or is no image-text-to-text model with safetensors, an image processor and a
            chat template.
    """
    transformers_logging.disable_progress_bar()
    folder = _locate(source)
    _check_files(source, folder)
    try:
        _copy(folder, out)
        parameters, model_type = _check_model(source, out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    hub_id = None if Path(source).expanduser().is_dir() else source
    return {"source": hub_id, "model_type": model_type, "parameters": parameters, "digest": folder_digest(out)}


def _locate(source: str) -> Path:
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    if local.exists():
        raise ModelError(source, "it is a file, not a folder")
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelError(source, "there is no such folder")
    try:
        return Path(snapshot_download(source, allow_patterns=[f"*{suffix}" for suffix in SUFFIXES]))
    except HUB_FAULTS as error:
        raise ModelError(source, f"no such folder here, and the hub does not give it ({first_line(error)})") from error


def _check_files(source: str, folder: Path) -> None:
    if (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(source, "it is an adapter, which a lineage cannot start from; merge it into its base first")
    if not (folder / "config.json").is_file():
        raise ModelError(source, "there is no config.json in it")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(source, "it holds no safetensors weights; other kinds are not loaded, for they can carry code")


def _copy(folder: Path, out: Path) -> None:
    """The files that loading needs, by allow-list; hidden folders (a hub's download cache) stay behind."""
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if file.is_file() and file.suffix in SUFFIXES and not any(part.startswith(".") for part in inside.parts):
            (out / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out / inside)


def _check_model(source: str, folder: Path) -> tuple[int, str]:
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except LOAD_FAULTS as error:
        raise ModelError(source, first_line(error).replace(str(folder), source)) from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise ModelError(source, f"it is no image-text-to-text model (model_type {config.model_type})")
    device = pick_device("cpu")
    try:
        model, processor = load_base(folder, device, complete=True)
        if not chat_template(processor):
            raise ModelError(source, NO_TEMPLATE, MEND_TEMPLATE)
        encode(VLM(model, processor, device, adapted=False, base=folder), [_probe()])
    except ModelError as error:  # it names the copy; the user knows the source
        raise ModelError(source, error.problem.replace(str(folder), source), error.mend) from error
    except SampleError as error:
        raise ModelError(source, f"of a picture with a question and an answer, {error.problem}") from error
    return sum(parameter.numel() for parameter in model.parameters()), str(config.model_type)


def _probe() -> Sample:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture, "PNG")
    return Sample(
        sample_id="probe/0",
        images=(picture.getvalue(),),
        messages=[
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which colour?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Red"}]},
        ],
        skill="probe",
        metric="exact_match",
        answers=("Red",),
    )

"""The accelerate files that docs/scale.md shows are such, and begin processes as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from adapt_inf.models.sharding import _is_asked_for

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
FILES = {
    name: text
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for name in re.findall(r"^# (\S+\.yaml)$", text, re.M)
}


KINDS = {"eight_gpus.yaml": "MULTI_GPU", "eight_gpus_fsdp.yaml": "FSDP", "eight_gpus_zero3.yaml": "DEEPSPEED"}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_what_accelerate_reads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS[name]
    (tmp_path / name).write_text(FILES[name])
    config = load_config_from_file(str(tmp_path / name))
    assert config.distributed_type == kind
    assert config.num_processes == 8
    told = launch_command_parser().parse_args(["--config_file", str(tmp_path / name), "script.py"])
    told = _validate_launch_command(told)[0]
    told.deepspeed_fields_from_accelerate_config = ""  # as the command fills in itself
    begun = prepare_deepspeed_cmd_env(told)[1] if kind == "DEEPSPEED" else prepare_multi_gpu_env(told)
    for key, value in begun.items():
        monkeypatch.setenv(key, value)
    assert _is_asked_for() == (kind != "MULTI_GPU")


def test_the_page_shows_all() -> None:
    assert sorted(FILES) == sorted(KINDS)

"""The accelerate files that docs/scale.md shows are such, and begin processes as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
FILES = {
    name: text
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for name in re.findall(r"^# (\S+\.yaml)$", text, re.M)
}


@pytest.mark.parametrize(("name", "kind"), [("eight_gpus.yaml", "MULTI_GPU"), ("eight_gpus_fsdp.yaml", "FSDP")])
def test_a_file_is_what_accelerate_reads(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    config = load_config_from_file(str(tmp_path / name))
    assert config.distributed_type == kind
    assert config.num_processes == 8
    told = launch_command_parser().parse_args(["--config_file", str(tmp_path / name), "script.py"])
    begun = prepare_multi_gpu_env(_validate_launch_command(told)[0])
    assert begun.get("ACCELERATE_USE_FSDP", "false") == str(kind == "FSDP").lower()


def test_the_page_shows_both() -> None:
    assert sorted(FILES) == ["eight_gpus.yaml", "eight_gpus_fsdp.yaml"]

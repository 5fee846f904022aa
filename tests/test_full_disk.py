"""A full disk: said as such with the mend, nothing half-written in place, and the same command later ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import full_disk
import pytest
from bad_drop import NAME, good_drop


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/full_disk.py found, on a file system that it alone sees."""
    home = tmp_path_factory.mktemp("full")
    (home / "disk").mkdir()
    good_drop(home / "come")
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*alone, sys.executable, full_disk.__file__, str(home / "disk"), str(home / "come")]
    paths = [str(Path(full_disk.__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def says_so(message: str) -> bool:
    return "the disk is full (0." in message and "run the same command again" in message


def test_every_way_of_writing_says_so(found: dict[str, Any]) -> None:
    assert len(found["writers"]) == 5
    assert [name for name, said in found["writers"].items() if not says_so(said)] == []


def test_a_drop_comes_in_whole_or_not_at_all(found: dict[str, Any]) -> None:
    failed = [each for each in found["drop"] if each["said"]]
    assert 5 < len(failed) < len(found["drop"]), "from no room at all to room enough"
    assert all(says_so(each["said"]) for each in failed)
    assert len([each for each in failed if "MB needed" not in each["said"]]) > 3, "some fill up while they copy"
    assert all(NAME not in each["left"] and not any(".part" in name for name in each["left"]) for each in failed)
    assert len({each["digest"] for each in found["drop"]}) == 1
    assert all(each["waits"] == [NAME] for each in found["drop"])


def test_a_stage_leaves_its_whole_output_or_none(found: dict[str, Any]) -> None:
    failed = [each for each in found["stage"] if each["said"]]
    assert 5 < len(failed) < len(found["stage"]), "from no room at all to room enough"
    assert all(says_so(each["said"]) for each in failed)
    assert not any(each["left"] for each in failed)
    assert len({each["digest"] for each in found["stage"]}) == 1


def test_dvc_says_so_and_goes_on_from_a_lock_file_that_was_cut_off(found: dict[str, Any]) -> None:
    failed = [each for each in found["DVC"] if each["said"]]
    assert 0 < len(failed) < len(found["DVC"]), "from no room at all to room enough"
    assert all(says_so(each["said"]) for each in failed)
    assert len({each["hash"] for each in found["DVC"]}) == 1

"""Processes that compute: what they say when they fail, and where they work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from adapt_inf.comparison.hands import LOG, Hands
from adapt_inf.comparison.pipeline import Stage
from adapt_inf.comparison.store import Store
from adapt_inf.comparison.work import Task
from adapt_inf.errors import AdaptInfError


def task(bench: Path, **params: Any) -> Task:
    """A task that reads nothing but the base model."""
    stage = Stage("ingest", (), (), "rounds/r001/ingest")
    (bench.parent / "model").mkdir(parents=True)
    return Task("name", stage, "r001", params, {"rounds/base/model": bench.parent / "model"}, bench)


def test_a_fault_with_a_mend_comes_back_with_whose_it_is(tmp_path: Path) -> None:
    with Hands(Store(tmp_path / "store"), 1) as hands:
        hands.begin(task(tmp_path / "bench", stepps=3), "seed 0 random")
        with pytest.raises(AdaptInfError, match=r"seed 0 random, r001 ingest: .*`stepps`: no such key.*\n.*comments"):
            hands.wait()


def test_any_other_end_comes_back_with_what_was_printed(tmp_path: Path) -> None:
    broken = task(tmp_path / "bench")
    broken.bench.mkdir()
    (broken.bench / "rounds").touch()  # where a folder must be
    with Hands(Store(tmp_path / "store"), 1) as hands:
        hands.begin(broken, "seed 0 random")
        with pytest.raises(AdaptInfError) as caught:
            hands.wait()
    assert "seed 0 random, r001 ingest: the process ended with 1." in caught.value.message
    assert "| NotADirectoryError" in caught.value.message
    assert str(broken.bench / "log.txt") in caught.value.mend


def test_what_is_at_work_can_be_told(tmp_path: Path) -> None:
    with Hands(Store(tmp_path / "store"), 2) as hands:
        there = task(tmp_path / "one" / "bench")
        there.bench.mkdir()
        os.mkfifo(there.bench / LOG)  # it waits here, for nobody reads what it prints
        hands.begin(there, "seed 0 random")
        hands.wait(0)
        assert hands.doing() == "seed 0 random r001 ingest"
        assert (hands.busy, hands.free) == ({"name"}, 1)


def test_hands_share_the_cores(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    alone = Hands(Store(tmp_path), 1)
    assert (alone.free, alone.cores) == (1, [cores])
    many = Hands(Store(tmp_path), 2 * len(cores))  # more than there are: each core has two
    assert sorted(core for share in many.cores for core in share) == sorted([*cores, *cores])

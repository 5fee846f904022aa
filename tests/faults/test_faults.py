"""Twelve kills over all eight stages, and what comes out is what an undisturbed lineage comes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fault_harness import Tally, bookkeeping, check, outcome, run_disturbed
from machine import Machine, copy_project
from serving import prefect_server

from adapt_inf.project import Project

KILLS = 12


def test_a_lineage_killed_in_every_stage_comes_out_as_one_that_was_not(
    machine: Machine, new_project: Project, two_rounds: Project, tmp_path: Path
) -> None:
    expected, tally = outcome(two_rounds), Tally()
    assert bookkeeping(two_rounds) == []
    (tmp_path / "home").mkdir()
    with prefect_server(tmp_path / "home") as served:
        while tally.kills < KILLS:  # on a busy machine some stages end before a kill comes
            assert tally.lineages < 3, tally.to_json()
            project = copy_project(new_project, tmp_path / f"killed-{tally.lineages}")
            left = KILLS - tally.kills
            run_disturbed(served, project, ["adapt-inf", "round"], np.random.default_rng(0), tally, kills=left)
            assert check(project, expected, tally) == []
    assert tally.kills == KILLS
    assert {"flow", "stage", "machine"} <= set(tally.roles)

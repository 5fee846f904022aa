"""The command answers at once and says in one line what is wrong."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from machine import Machine

from adapt_inf.cli import main
from adapt_inf.project import Project


def test_help_needs_no_heavy_import() -> None:
    code = "import sys\nfrom adapt_inf.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'transformers', 'prefect', 'mlflow', 'dvc', 'pandas', 'numpy'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lineage" in done.stdout
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - started
    assert spent < 5  # a sanity bound for a loaded machine; it takes 0.1 s


@pytest.mark.parametrize(
    "arguments",
    [["round"], ["status"], ["lineage", "--json"], ["stage", "sketch", "r001"], ["drop", "nowhere"]],
)
def test_outside_a_project_every_command_says_so(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"adapt-inf: {tmp_path} is no adapt_inf project.\n")


def test_init_refuses_a_folder_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_reader_that_has_read_enough_is_no_fault(machine: Machine, two_rounds: Project) -> None:
    with subprocess.Popen(
        ["adapt-inf", "lineage", "--json"],
        cwd=two_rounds.root,
        env=machine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0

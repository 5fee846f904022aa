"""The commands on the pages run, those that are only named parse, links lead somewhere, the reference can be built.

Lines that begin with `$` in blocks marked `console` are commands. Those of a page run in its order, in a project of its
own that has had two rounds, with drops beside it. `NOT_RUN` has the others.
"""

from __future__ import annotations

import ast
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from machine import copy_project
from make_drop import make_drop

from adapt_inf.cli import main, parser
from adapt_inf.project import Project

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
TEXTS = {"../README.md": (ROOT / "README.md").read_text(encoding="utf-8"), **PAGES}

NOT_RUN = {
    r"cd \S+": "the project of the test is the current folder",
    r"adapt-inf init .*": "seconds of torch: tests/projects.py and tests/models/test_importing.py do it",
    r"adapt-inf demo .*": "half a minute: tests/demo/test_compose.py makes such drops, tests/projects.py a project",
    r"adapt-inf compare --strategies .*": "minutes: tests/comparison/test_compare.py",
    r"adapt-inf drop s3://.*": "needs a bucket: tests/test_remote_drops.py",
    r"adapt-inf round": "a minute: tests/flows/test_round.py",
    r"adapt-inf (push|pull)": "half a minute: tests/third_round.py and tests/test_sharing.py",
    r"adapt-inf serve .*": "goes on until it is stopped: tests/flows/test_serve.py",
    r"adapt-inf drop squares --project line": "of a project that `init` would have made: tests/flows/test_serve.py",
    r"adapt-inf promote .*": "needs a round that was held back: tests/test_promotion.py",
    r"prefect (config set|server start).*": "changes this user's settings, goes on: tests/serving.py",
    r"git (push( --tags)?|clone ORIGIN project)": "needs an origin: tests/third_round.py clones",
    r"dvc remote .*": "needs a store to be of use: tests/third_round.py and tests/test_sharing.py, S3 too",
    r"pip install .*": "the network",
    r"make .*": "minutes, and an environment of its own",
    r"python benchmarks/\S+": "minutes: what the figures come from",
    r"python -c .*compose_drop.*": "seconds: tests/demo/test_compose.py",
    r"python -m adapt_inf\.demo\.(build_assets|train_base) .*": "the network, and an hour",
}


def lines_of(text: str, kind: str) -> list[str]:
    """The lines of the blocks that are marked `kind`."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def commands(text: str) -> list[str]:
    lines = [line[2:] for line in lines_of(text, "console") if line.startswith("$ ")]
    return [re.split(r"\s+#", line)[0] for line in lines]


def reason(command: str) -> str | None:
    return next((NOT_RUN[pattern] for pattern in NOT_RUN if re.fullmatch(pattern, command)), None)


def to_run(text: str) -> list[str]:
    return [command for command in commands(text) if reason(command) is None]


@pytest.fixture(scope="module")
def world(two_rounds: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project as `garden` and drops beside it."""
    home = tmp_path_factory.mktemp("pages")
    copy_project(two_rounds, home / "garden")
    for seed, name in enumerate(("birds", "shapes", "third"), start=20):
        make_drop(home / name, name, train=8, eval=2, seed=seed)
    return home


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if to_run(text)])
def test_the_commands_of_a_page_run(
    page: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["cp", "-a", world, tmp_path / "home"], check=True)
    monkeypatch.chdir(tmp_path / "home" / "garden")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for command in to_run(PAGES[page]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        words = shlex.split(command)
        if words[0] == "adapt-inf":
            status = main(words[1:]) or 0
        else:
            words[0] = sys.executable if words[0] == "python" else words[0]
            status = subprocess.run(words, capture_output=True, check=False).returncode
        assert status == 0, f"{command}: {capsys.readouterr().err}"


def mentioned(text: str) -> Iterator[str]:
    """Every command of ours in a text: in backticks, or a line of a block."""
    blocks = re.findall(r"^(?:    |\$ )(?:\$ )?(adapt-inf [a-z].*)$", text, re.MULTILINE)
    blocks += [line for line in lines_of(text, "sh") if re.match(r"adapt-inf [a-z]", line)]
    inline = [" ".join(each.split()) for each in re.findall(r"`(adapt-inf\s[a-z][^`]*)`", text)]
    for line in [*blocks, *inline]:
        first = re.split(r"\s+#|\s{2,}|, | &&|; |…", line)[0]
        yield first.strip()


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_that_is_named_parses(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in dict.fromkeys(mentioned(TEXTS[page])):
        words = shlex.split(command)[1:]
        with suppress(SystemExit):
            parser().parse_args(words)
        error = capsys.readouterr().err
        alone = len(words) == 1 and "the following arguments are required" in error  # the name of a command
        assert not error or alone, f"{page}: {command}\n{error}"


def test_commands_of_every_kind_of_block_are_found() -> None:
    blocks = "```sh\nexport A=b\nadapt-inf init line   # x\n```\n\n```console\n$ adapt-inf push\n```\n"
    text = f"{blocks}\n    adapt-inf gc\n\n`adapt-inf\nplan`"
    assert sorted(mentioned(text)) == [f"adapt-inf {each}" for each in ("gc", "init line", "plan", "push")]
    assert {"adapt-inf init line", "adapt-inf serve"} <= set(mentioned(PAGES["production.md"]))


def test_nothing_is_left_out_without_need() -> None:
    every = [command for text in PAGES.values() for command in commands(text)]
    assert [pattern for pattern in NOT_RUN if not any(re.fullmatch(pattern, command) for command in every)] == []
    assert sum(reason(command) is None for command in every) > 20


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_pictures_are_there(page: str) -> None:
    for target, anchor in re.findall(r"\]\(((?!https?:)[^)#\s]*)(?:#([^)]*))?\)", TEXTS[page]):
        path = (ROOT / "docs" / page).parent / target if target else ROOT / "docs" / page
        assert path.exists(), f"{page} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{page} links to {target}#{anchor}"


def test_every_page_is_on_the_index() -> None:
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", PAGES["README.md"]))
    assert set(PAGES) - {"README.md"} <= listed


def test_every_module_of_the_reference_says_what_it_is() -> None:
    modules = [path for folder in ("adapt_inf", "flows") for path in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 100
    assert [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_the_reference_is_built_from_docstrings(tmp_path: Path) -> None:
    """Of one module: all of them take half a minute."""
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-m pdoc" in line]
    options = shlex.split(line.replace("$(BIN)/python -m pdoc", "").replace("build/api adapt_inf flows", ""))
    command = [sys.executable, "-m", "pdoc", *options, str(tmp_path), "adapt_inf.selection.budgets"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    page = (tmp_path / "adapt_inf" / "selection" / "budgets.html").read_text(encoding="utf-8")
    assert "Splitting a count over clusters or strata by water-filling" in page
    assert "cluster_budgets" in page
    assert re.search(r"<h6 id=\"\S*arguments\">Arguments:</h6>", page)

"""DVC and git as a round uses them: make a repository, reproduce one stage, add an output, commit a round.

A new Repo per stage: DVC's index of a Repo that has reproduced something is stale. Importing dvc.repo costs 0.25 s.
"""

from __future__ import annotations

import configparser
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from adapt_inf.errors import AdaptInfError, RoundError, shown
from adapt_inf.files import is_full, parse_yaml, room_for
from adapt_inf.project import Project

# Hard links halve disk and time; outputs are never edited in place. Not `reflink`: with it in the list DVC leaves a
# plain copy beside the cache wherever the file system has no reflinks (ext4), and every output lies there twice.
CACHE_TYPES = "hardlink,symlink,copy"

VERSIONED = (
    ".gitignore",
    ".dvcignore",
    ".dvc/config",
    ".dvc/.gitignore",
    "params.yaml",
    "dvc.yaml",
    "rounds/head.json",
    "rounds/history.jsonl",
    "rounds/base/*.dvc",
    "rounds/base/source.json",
    "rounds/*/.gitignore",
    "rounds/r*/params.yaml",
    "rounds/r*/dvc.yaml",
    "rounds/r*/dvc.lock",
    "rounds/r*/round.json",
)
"""What git holds of a project; all of it in every commit, so that one missed by a killed run is not missed for good."""

IGNORED = """\
/comparisons/
/drops/
/mlflow.db*
/mlartifacts/
/rounds/.*
/rounds/*/.work/
/rounds/*/log/
/rounds/*/pictures/
/rounds/*/report.html
"""


NOT_FOR_DVC = """\
# Stages that a drop brings are no stages of this project: they would be run.
/drops/**/dvc.yaml
/drops/**/*.dvc
/comparisons/
"""


def quiet_environment() -> dict[str, str]:
    """The settings that every process of ours runs under: no telemetry, no network, a thread a process.

    Training steps of the demo's model a second on two cores: 1 thread 8.5, also beside a busy process; 2 threads that
    sleep between regions 12, beside a busy process 1.2; that spin a moment 13, beside a busy process 2.5.
    """
    return {
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal has our own lines; Prefect's page has all
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # what its server answers while its database is started again
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "OMP_NUM_THREADS": "1",  # see adapt_inf.parallel
        "TOKENIZERS_PARALLELISM": "false",
    }


def set_environment() -> None:
    """Apply `quiet_environment` where the user has not set otherwise; let DVC find this environment's `adapt-inf`."""
    for key, value in quiet_environment().items():
        os.environ.setdefault(key, value)
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])


def create_repository(root: Path, *, git: bool) -> None:
    """Make `root` a DVC repository, in a git repository of its own if `git`."""
    from dvc.repo import Repo

    if git:
        _git(root, "init", "--quiet", "--initial-branch", "main")
    _quieten_dvc()
    with contextlib.closing(Repo.init(str(root), no_scm=not git)) as repo, repo.config.edit() as config:
        config["core"].update({"analytics": "false", "check_update": "false"})
        config["cache"]["type"] = CACHE_TYPES.split(",")
    (root / ".dvcignore").write_text(NOT_FOR_DVC, encoding="utf-8")
    if git:
        (root / ".gitignore").write_text(IGNORED, encoding="utf-8")


def add_outputs(root: Path, paths: list[str]) -> None:
    """Put folders that no stage writes under DVC, as `dvc add` does."""
    with open_repository(root) as repo:
        repo.add(paths)


def reproduce(project: Project, round_id: str, stage: str) -> bool:
    """Bring one stage of a round up to date; whether it had to run.

    Raises:
        StageFailedError: the stage's command failed, or DVC could not start it.
        NoRoomError: the disk was full when DVC wrote down what the stage had made.
    """
    from dvc.exceptions import DvcException

    _drop_torn_lock(project.round(round_id) / "dvc.lock")
    with room_for(project.round(round_id)), open_repository(project.root) as repo:
        try:
            return bool(repo.reproduce(targets=f"rounds/{round_id}/dvc.yaml:{stage}", single_item=True))
        except DvcException as error:
            if is_full(error):
                raise
            for cause in _chain(error):
                if not isinstance(cause, Exception):  # told to stop, in the midst of DVC's bookkeeping
                    raise cause from error
            raise StageFailedError(round_id, stage, ": ".join(map(str, _chain(error)))) from error


def _drop_torn_lock(lock: Path) -> None:
    """Remove a dvc.lock that a full disk or a kill cut off: DVC writes it in place, and would stop at it for ever.

    What the stages before have made is found again by DVC's cache of runs.
    """
    import voluptuous
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(lock.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (yaml.YAMLError, UnicodeDecodeError, voluptuous.Invalid):
        lock.unlink()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class StageFailedError(RoundError):
    """A stage's command ended badly and named nothing to mend.

    `may_pass`: another attempt may come out better. `interrupted`: by Ctrl-C, which DVC lets the stage have alone, or
    told to stop with all that the run started.
    """

    def __init__(self, round_id: str, stage: str, problem: str, printed: Sequence[str] = ()) -> None:
        self.stage = stage
        self.problem = problem
        found = re.search(r"exited with (-?\d+)", problem)
        status = int(found[1]) if found else None
        self.interrupted = status is not None and {-status, status - 128} & {signal.SIGINT, signal.SIGTERM} != set()
        # Not where the command says that it is wrong (1: a Python error; 2, 126, 127: the shell's); a killed one, a
        # full disk (EX_TEMPFAIL) and DVC that found its lock taken may.
        self.may_pass = status not in (1, 2, 126, 127)
        shown = "".join(f"\n  | {line}" for line in printed)
        last = f"Its last lines:{shown}\n  " if shown else ""
        super().__init__(
            round_id,
            f"stage {stage} failed ({problem.rstrip('.')})",
            f"{last}All that it printed stands in rounds/{round_id}/log/{stage}.log; "
            f"`adapt-inf stage {stage} {round_id}` runs it alone, and `adapt-inf round` goes on from here.",
        )


_SECRET_OPTION = re.compile(r"password|secret|token|account_key|connection_string|auth_header")


def refuse_secrets(project: Project) -> None:
    """See that .dvc/config, which git holds and `adapt-inf push` says to send on, names no key and no password.

    Raises:
        AdaptInfError: it does; with the mend.
    """
    path = project.root / ".dvc/config"
    if not path.is_file() or not (project.root / ".git").exists():
        return
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read_string("\n".join(line.strip() for line in path.read_text(encoding="utf-8").splitlines()))
    except configparser.Error:  # DVC says what is wrong with it
        return
    for section in config.sections():
        for key, value in config[section].items():
            if (_SECRET_OPTION.search(key) and value) or shown(value) != value:
                raise AdaptInfError(
                    f".dvc/config, which git holds, has a secret: `{key}` of {section.strip(chr(39))}.",
                    "Take it out there and say it with `dvc remote modify --local`, which git does not see, or by the "
                    "environment (AWS_SECRET_ACCESS_KEY). If it was committed before, it has to be changed.",
                )


def commit_round(project: Project, round_id: str, message: str) -> str | None:
    """`commit_files`, and tag the commit round/<id>."""
    commit = commit_files(project, message)
    if commit is not None:
        _git(project.root, "tag", "--force", f"round/{round_id}")
    return commit


def commit_files(project: Project, message: str) -> str | None:
    """Commit the files that define the lineage, and only those, where they changed.

    Returns:
        the hash of the commit that holds them, or None outside git.

    Raises:
        AdaptInfError: git failed, or one of them has a secret.
    """
    root = project.root
    if not (root / ".git").exists():
        return None
    refuse_secrets(project)
    found = [path for pattern in VERSIONED for path in sorted(root.glob(pattern)) if path.is_file()]
    names = [str(path.relative_to(root)) for path in found]
    _git(root, "add", "--", *names)
    if _git(root, "diff", "--cached", "--name-only", "--", *names):
        _git(root, *_identity(root), "commit", "--quiet", "--message", message, "--", *names)
    return head_commit(root)


def head_commit(root: Path) -> str | None:
    """The commit that git stands on in `root`, or None outside git."""
    return _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None


def commit_of_round(project: Project, round_id: str) -> str | None:
    """The commit that the round's tag names, or None where git has no such tag."""
    root = project.root
    if not (root / ".git").exists() or not _git(root, "tag", "--list", f"round/{round_id}"):
        return None
    return _git(root, "rev-list", "-n1", f"round/{round_id}")


def _identity(root: Path) -> list[str]:
    """Who commits, where git does not know: a round at night must not fail for want of a name."""
    known = subprocess.run(["git", "config", "user.email"], cwd=root, capture_output=True, check=False).returncode == 0
    return [] if known else ["-c", "user.name=adapt-inf", "-c", "user.email=adapt-inf@localhost"]


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AdaptInfError(
            f"git {arguments[0]} failed in {root}: {done.stderr.strip() or done.stdout.strip()}.",
            "Mend it there, or set `git.commit: false` in params.yaml.",
        )
    return done.stdout.strip()


@contextlib.contextmanager
def open_repository(root: Path) -> Iterator:
    """The DVC repository at `root`, with the current folder in it while it is open."""
    from dvc.repo import Repo

    _quieten_dvc()
    # DVC takes targets from the current folder, and fails in one that is outside the repository.
    with contextlib.chdir(root), contextlib.closing(Repo(".")) as repo:
        yield repo


def _quieten_dvc() -> None:
    """Keep DVC's advice on which files to add to git off the terminal: we add them. Call it once DVC is imported."""
    logging.getLogger("dvc").setLevel(logging.WARNING)

"""A PostgreSQL server of Debian's package, with files of its own, on loopback; it ends with the block."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "adapt", "a-word-that-nobody-may-read"


@dataclass(frozen=True)
class Postgres:
    """A server that is running.

    Attributes:
        folder: its data, its log and its socket.
        programs: where Debian keeps initdb and pg_ctl.
    """

    folder: Path
    programs: Path
    port: int

    def address(self, database: str, driver: str = "postgresql") -> str:
        return f"{driver}://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *words: str) -> str:
        """One of PostgreSQL's own programs; it refuses to be root, for whom Debian has a user."""
        account = "postgres" if os.getuid() == 0 else None
        done = subprocess.run(
            [str(self.programs / program), *words],
            user=account,
            group=account,
            extra_groups=None if account is None else [],
            cwd="/",
            env=os.environ | {"PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        return done.stdout

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder}"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def stop(self, how: str = "fast") -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", how, "-w", "stop")

    def create(self, database: str) -> None:
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, database)

    def dump(self, database: str) -> str:
        """All that is in it, as text."""
        return self.run("pg_dump", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, database)


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A server that asks for a password, with its files in `folder`, which is made."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise RuntimeError("There is no PostgreSQL: `apt-get install postgresql`.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Postgres(folder, found[-1].parent, free.getsockname()[1])
    folder.mkdir()
    word = folder / "word"
    word.write_text(PASSWORD)
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        for path in (folder, word):
            os.chown(path, account.pw_uid, account.pw_gid)
    words = ["-D", f"{folder}/data", "-U", USER, "-A", "scram-sha-256", f"--pwfile={word}", "-E", "UTF8"]
    server.run("initdb", *words, "--no-sync")
    word.unlink()
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder / "data")

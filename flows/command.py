"""Work off the queue in this process, with a server of Prefect's own where none is set: `adapt-inf round`, the demo."""

from __future__ import annotations

from adapt_inf.project import Project
from flows.server import await_server, begin_server


def drain_now(project: Project) -> list[str]:
    """See `flows.drain.drain`; the rounds that were done."""
    server = begin_server()
    from adapt_inf.tracking.store import connect
    from flows.drain import drain, without_heartbeats

    connect(project)  # imports MLflow, while the server starts
    await_server(server)
    with without_heartbeats():
        done: list[str] = drain(str(project.root))
    return done

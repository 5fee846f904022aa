"""Work off the queue in this process, with a server of Prefect's own where none is set: `adapt-inf round`, the demo."""

from __future__ import annotations

import httpx

from adapt_inf.errors import AdaptInfError
from adapt_inf.processes import uncollected
from adapt_inf.project import Project
from adapt_inf.tracking.process import tracking_process
from flows.server import await_server, begin_server

_UNREACHED = "Failed to reach API"  # a RuntimeError of Prefect's client, as it begins


def drain_now(project: Project) -> list[str]:
    """The rounds that were done; see `flows.drain.drain`.

    Raises:
        AdaptInfError: as there, or Prefect's server went away.
    """
    with tracking_process(project):
        with uncollected():
            server = begin_server()
            from flows.drain import drain, without_heartbeats

        await_server(server)
        try:
            with without_heartbeats():
                done: list[str] = drain(str(project.root))
        except (httpx.HTTPError, RuntimeError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0].split(" - ")[0]
            if isinstance(error, RuntimeError) and not said.startswith(_UNREACHED):
                raise
            raise AdaptInfError(
                f"Prefect's server does not answer as it should ({said}).",
                "See that it and its database run; `adapt-inf round` goes on from here.",
            ) from error
    return done

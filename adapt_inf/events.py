"""The event that a drop has come: what starts a round at once where a Prefect server and `adapt-inf serve` run.

It only saves the wait for the next poll, which finds the drop in any case: a server that does not answer costs a
warning and some seconds. Prefect is not imported where no server is set.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from adapt_inf.errors import shown
from adapt_inf.project import Project

EVENT = "adapt-inf.drop.ready"
_SECONDS = 5.0  # for the server to take it


def project_resource(project: Project) -> str:
    """The id under which a project stands in Prefect's events: its folder's name, and a digest that tells its path."""
    root = project.root.resolve()
    return f"adapt-inf.project.{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def announce(project: Project, drop: str) -> bool:
    """Tell the Prefect server that `drop` waits in the project; whether one is set and has taken it."""
    if not _server_may_be_set():
        return False
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.events import Event
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

    if not (server := get_current_settings().api.url):
        return False
    event = Event(
        event=EVENT,
        resource={"prefect.resource.id": project_resource(project), "prefect.resource.name": project.root.name},
        payload={"project": str(project.root.resolve()), "drop": drop},
    )
    try:
        # Posted here and now: `emit_event` leaves it to a thread, which a process that ends takes with it.
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": _SECONDS}, sync_client=True) as client,
        ):
            client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    except (httpx.HTTPError, OSError) as error:
        reason = str(error) or type(error).__name__
        print(
            f"adapt-inf: the Prefect server at {shown(server)} was not told ({shown(reason)}).\n"
            f"  {drop} waits all the same: the next poll or `adapt-inf round` takes it in.",
            file=sys.stderr,
        )
        return False
    return True


def _server_may_be_set() -> bool:
    """Whether an address can stand in the environment or in Prefect's profiles, without importing Prefect."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    return (home / "profiles.toml").is_file()

"""Rounds that begin by themselves: three deployments of the one drain, by event, by poll and by cron, and the form.

One process polls Prefect's server and starts a process for each run that is due. It begins with a drain, for what came
while nobody served. Told to stop, it stops what it started and switches its schedules off.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from adapt_inf.config import load_params
from adapt_inf.errors import ConfigError
from adapt_inf.events import EVENT, project_resource
from adapt_inf.project import Project
from flows.approval import approve
from flows.drain import drain
from flows.names import deployment_name
from flows.processes import mark_runner
from flows.server import NoServerError, check_server, configured_server

_LOOK_SECONDS = 2.0  # between looks for runs that are due
_AT_ONCE = 2  # processes: one works, another looks and leaves; what else is due waits its turn


def deployments(project: Project) -> list[RunnerDeployment]:
    """What `serve` registers for the project, by `schedule` of its params.yaml.

    Raises:
        ConfigError: cron or the timezone is none.
    """
    schedule = load_params(project.params_file).schedule
    parameters = {"root": str(project.root), "served": True}

    def of_drain(kind: str, **when: Any) -> RunnerDeployment:
        name = deployment_name(project, kind)
        deployment: RunnerDeployment = drain.to_deployment(
            name, parameters=parameters, entrypoint_type=EntrypointType.MODULE_PATH, **when
        )
        return deployment

    resource = {"prefect.resource.id": project_resource(project)}
    found = [of_drain("event", triggers=[DeploymentEventTrigger(expect={EVENT}, match=resource)])]
    if schedule.poll_seconds is not None:
        found.append(of_drain("poll", schedule=Interval(timedelta(seconds=schedule.poll_seconds))))
    if schedule.cron is not None:
        found.append(of_drain("cron", schedule=_cron(project, schedule.cron, schedule.timezone)))
    form = approve.to_deployment(
        deployment_name(project, "approve"),
        parameters={"root": str(project.root)},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return [*found, form]


def _cron(project: Project, cron: str, timezone: str) -> Schedule:
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ConfigError(project.params_file, "schedule.timezone", f"there is no timezone {timezone!r}") from None
    try:
        return Cron(cron, timezone=timezone)
    except ValueError as error:
        raise ConfigError(project.params_file, "schedule.cron", f"{cron!r} is no cron line ({error})") from error


def serve(project: Project, say: Callable[[str], None]) -> None:
    """Serve the project's deployments until Ctrl-C or SIGTERM.

    Raises:
        NoServerError: none is set, or none answers.
        ConfigError: `schedule` of params.yaml is not right.
    """
    if configured_server() is None:
        raise NoServerError("no Prefect server is set")
    check_server()
    found = deployments(project)
    mark_runner()
    runner = Runner(query_seconds=_LOOK_SECONDS, limit=_AT_ONCE)
    asyncio.run(_serve(project, runner, found, say))


async def _clear_schedules(client: PrefectClient, project: Project, served: set[str]) -> None:
    """Drop the runs that came due while nobody served, a look a minute, and the deployments that are off by now."""
    for kind in ("poll", "cron"):
        name = deployment_name(project, kind)
        with suppress(ObjectNotFound):  # it was never on
            known = await client.read_deployment_by_name(f"{drain.name}/{name}")
            if name in served:
                await client.pause_deployment(known.id)  # takes its runs away; to register it goes on with it
            else:
                await client.delete_deployment(known.id)


async def _serve(project: Project, runner: Runner, found: list[RunnerDeployment], say: Callable[[str], None]) -> None:
    async with get_client() as client:
        await _clear_schedules(client, project, {each.name for each in found})
        for deployment in found:
            await runner.aadd_deployment(deployment)
        first = await client.read_deployment_by_name(f"{drain.name}/{found[0].name}")
        await client.create_flow_run_from_deployment(first.id, name="drain what came before")
    stop = asyncio.Event()
    serving = asyncio.create_task(runner.start())
    while not runner.started and not serving.done():
        await asyncio.sleep(0.05)
    for number in (signal.SIGINT, signal.SIGTERM):  # the runner has set its own by now, which leaves processes behind
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    say(f"Serving {project.root}: {', '.join(each.name for each in found)}. Ctrl-C stops it.")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        say("Stopping: what runs is told to stop, and goes on when it is started again.")
        await runner.astop()
    await serving

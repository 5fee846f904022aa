"""What a project is called in Prefect: several projects, of one folder name even, may share a server."""

from __future__ import annotations

from adapt_inf.events import project_resource
from adapt_inf.project import Project


def deployment_name(project: Project, kind: str) -> str:
    """The name of the project's deployment that `kind` starts: event, poll, cron or approve."""
    return f"{project_resource(project).removeprefix('adapt-inf.project.')}-{kind}"

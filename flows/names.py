"""What a project is called in Prefect: several projects, of one folder name even, may share a server."""

from __future__ import annotations

import re

from adapt_inf.events import project_resource
from adapt_inf.project import Project


def deployment_name(project: Project, kind: str) -> str:
    """The name of the project's deployment that `kind` starts: event, poll, cron or approve."""
    known_as = project_resource(project).removeprefix("adapt-inf.project.")
    allowed = re.sub(r"[^\w.-]", "_", known_as)  # Prefect refuses some signs; the digest in it tells projects apart
    return f"{allowed}-{kind}"

"""A small model that looks at the candidates for the large one: selection via proxy (Coleman et al. 2020, 1906.11829).

With `sketch.model: proxy` the stages sketch and score run the model in rounds/base/proxy, which `adapt-inf init
--proxy` brings there, in the place of the parent's. It has a processor and a chat template of its own, and no round
trains it. A candidate that either model cannot read is set aside: the one has to judge it, the other to learn from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adapt_inf.config import Params
from adapt_inf.errors import AdaptInfError
from adapt_inf.project import BASE, PROXY, Project

PROXY_PATH = f"rounds/{BASE}/{PROXY}"
READER_PATH = f"rounds/{BASE}/model"
"""Whose processor says what the trained model can read: all models of a lineage read alike."""

_PARENT_PATH = "rounds/${parent}/model"


def asks_proxy(params: Params) -> bool:
    return params.sketch.model == PROXY


def depends_on(stage: str, deps: Iterable[str]) -> list[str]:
    """The paths that a stage reads where a proxy looks, from those that dvc.yaml names for it."""
    if stage not in ("sketch", "score"):
        return list(deps)
    found = [PROXY_PATH if path == _PARENT_PATH else path for path in deps]
    return [*found, READER_PATH] if stage == "sketch" else found


def check_proxy(project: Project, params: Params, source: Path) -> None:
    """See that there is a proxy where `params` asks for one.

    Raises:
        AdaptInfError: there is none.
    """
    if asks_proxy(params) and not project.output(BASE, PROXY).is_dir():
        raise AdaptInfError(
            f"{source}: `sketch.model` is {PROXY}, and there is none in {PROXY_PATH}.",
            f"Set it to parent; or copy a model there, `dvc add {PROXY_PATH}`, and go on; "
            "`adapt-inf pull` brings it where another clone has it.",
        )

"""Scores by name: those in this folder and those that installed packages bring.

Looking one up costs a read of package metadata, and only for a name that is not built in.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from adapt_inf.errors import ConfigError
from adapt_inf.selection.scores.base import DRAWS, SIGNALS, Score, draw_of
from adapt_inf.selection.scores.crds_w import CRDSW
from adapt_inf.selection.scores.el2n import EL2N
from adapt_inf.selection.scores.entropy import Entropy
from adapt_inf.selection.scores.grand import GraNd
from adapt_inf.selection.scores.image_grounding import ImageGrounding
from adapt_inf.selection.scores.oasis import OASIS
from adapt_inf.selection.scores.perplexity import Perplexity
from adapt_inf.selection.scores.random import Random
from adapt_inf.selection.scores.rds_plus import RDSPlus
from adapt_inf.selection.scores.visnec import VisNec

GROUP = "adapt_inf.scores"

_BUILT_IN: tuple[Callable[[], Score], ...] = (
    *(Perplexity, EL2N, Entropy, GraNd, ImageGrounding, Random),
    *(VisNec, RDSPlus, CRDSW, OASIS),
)


def available() -> list[str]:
    """Names of all scores: the built-in ones, then those of installed packages by name."""
    own = [make().name for make in _BUILT_IN]
    return own + sorted({point.name for point in entry_points(group=GROUP)} - set(own))


def origin(name: str) -> str:
    """Where a score comes from: `built in`, or its entry point and the distribution that brings it."""
    if any(make().name == name for make in _BUILT_IN):
        return "built in"
    return ", ".join(_described(point) for point in entry_points(group=GROUP, name=name)) or "of no installed package"


def _described(point: EntryPoint) -> str:
    brought_by = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"entry point {point.value}{brought_by}"


def resolve(names: list[str], source: Path = Path("params.yaml")) -> list[Score]:
    """The scores called `names`, in that order. A built-in name cannot be taken by a package.

    Args:
        source: the file that `names` come from, for the error.

    Raises:
        ConfigError: an unknown name (the error lists what there is), the same name twice, or an entry point that is no
            score of that name, needs a signal that does not exist or draws otherwise than there is.
    """
    if len(set(names)) < len(names):
        raise ConfigError(source, "select.scores", f"a score is named twice in {', '.join(names)}")
    return [_resolve_one(name, source) for name in names]


def _resolve_one(name: str, source: Path) -> Score:
    for make in _BUILT_IN:
        score = make()
        if score.name == name:
            return score
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        raise ConfigError(source, "select.scores", f"there is no score {name}; there are {', '.join(available())}")
    if len(points) > 1:
        raise ConfigError(source, "select.scores", f"there are several scores {name}: {origin(name)}")
    where = _described(points[0])
    try:
        score = points[0].load()()
        fits = isinstance(score, Score) and score.name == name and callable(score.compute)
        needs = tuple(score.needs) if fits and not isinstance(score.needs, str) else ()
    except (Exception, SystemExit) as error:  # importing and making it runs foreign code, which may raise anything
        problem = f"{name} ({where}) cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigError(source, "select.scores", problem) from error
    if not fits:
        raise ConfigError(
            source, "select.scores", f"{where} is no score called {name}: it needs `name`, `needs` and `compute`"
        )
    unknown = sorted({str(need) for need in needs} - SIGNALS.keys())
    if unknown or not needs:
        problem = f"{name} ({where}) needs {', '.join(unknown) or 'no signal'}; there are {', '.join(SIGNALS)}"
        raise ConfigError(source, "select.scores", problem)
    if draw_of(score) not in DRAWS:
        problem = f"{name} ({where}) has draw = {draw_of(score)!r}; there are {', '.join(DRAWS)}"
        raise ConfigError(source, "select.scores", problem)
    return score

"""A lineage as a walk from result to result: each is named by those before it, and in the store or asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from adapt_inf.comparison.pipeline import Stage, result_name, stages_for
from adapt_inf.comparison.plan import Lineage, Plan
from adapt_inf.comparison.store import Result, Store
from adapt_inf.comparison.work import Task, sources_of
from adapt_inf.project import BASE, Project


@dataclass(frozen=True)
class Step:
    """One stage of one round of a lineage, filled in."""

    round_id: str
    parent: str
    drop: str
    stage: Stage


class Walk:
    """One lineage: what of it is done, and what comes next.

    Attributes:
        steps: every stage of every round.
        results: of the steps that are done, in their order.
    """

    def __init__(self, project: Project, plan: Plan, line: Lineage, pipeline: Mapping[str, Stage]) -> None:
        self.line = line
        params = plan.params_of(line, project.params_file)
        self._params = asdict(params)
        self.steps = [
            Step(f"r{number:03d}", parent, drop, stage.of(round=f"r{number:03d}", parent=parent, drop=drop))
            for number, drop in enumerate(plan.drops, start=1)
            for parent in [f"r{number - 1:03d}" if number > 1 else BASE]
            for stage in stages_for(pipeline, params, parent)
        ]
        self.results: list[Result] = []
        self._made = {step.stage.out: at for at, step in enumerate(self.steps)}
        self._digests = {f"drops/{name}": digest for name, digest in plan.drops.items()}
        self._digests |= {f"rounds/{BASE}/{name}": digest for name, digest in plan.base.items()}
        self._places = {f"drops/{name}": project.drop(name).resolve() for name in plan.drops}
        self._places |= {f"rounds/{BASE}/{name}": project.output(BASE, name) for name in plan.base}

    @property
    def done(self) -> bool:
        return len(self.results) == len(self.steps)

    def advance(self, store: Store) -> None:
        """Take every result that is in the store already."""
        while not self.done and (result := store.get(self._name())) is not None:
            self.results.append(result)

    def task(self, store: Store, benches: Path) -> Task:
        """What has to be computed next: the step that is reached, or one before it whose content it needs and that is
        gone, to which the walk then goes back.
        """
        step = self.steps[len(self.results)]
        for path in step.stage.deps:
            at = self._made.get(path)
            if at is not None and not store.content(self.results[at].name).is_dir():
                store.forget(self.results[at].name)
                del self.results[at:]
                return self.task(store, benches)
        places = self._places | {
            step.stage.out: store.content(result.name) for step, result in zip(self.steps, self.results, strict=False)
        }
        params = self._params | {"round": step.round_id, "parent": step.parent, "drop": step.drop}
        name = self._name()
        return Task(name, step.stage, step.round_id, params, sources_of(step.stage, places), benches / name)

    def _name(self) -> str:
        step = self.steps[len(self.results)]
        made = {step.stage.out: result.digest for step, result in zip(self.steps, self.results, strict=False)}
        return result_name(step.stage, step.round_id, self._digests | made, self._params)

"""What to say while a comparison runs: a line for each round that is done, and about how long the rest takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from adapt_inf.comparison.walk import Walk


class Pace:
    """Seconds that results took, for those that are ahead."""

    def __init__(self, walks: Sequence[Walk], jobs: int) -> None:
        self._walks, self._jobs = walks, jobs
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for walk in walks:
            self.add(walk, 0)

    def add(self, walk: Walk, since: int) -> None:
        """Take note of what the walk's results from `since` on took."""
        for step, result in zip(walk.steps[since:], walk.results[since:], strict=False):
            self._seconds[step.stage.name, step.round_id].append(result.seconds)

    def lines(self, walk: Walk, since: int) -> Iterator[str]:
        """A line for each round that the walk has ended since it had `since` results."""
        for at in range(since, len(walk.results)):
            step = walk.steps[at]
            if step.stage.name == "evaluate":
                done = zip(walk.steps, walk.results, strict=False)
                taken = sum(result.seconds for each, result in done if each.round_id == step.round_id)
                average = walk.results[at].report.get("average_accuracy")
                shown = "-" if average is None else f"{average:.3f}"
                yield (
                    f"{walk.line}  {step.round_id} {step.drop}  average {shown}  {taken:.0f} s  | "
                    f"{sum(each.done for each in self._walks)} of {len(self._walks)} lineages, {self._left()}"
                )

    def _left(self) -> str:
        ahead = [step for walk in self._walks for step in walk.steps[len(walk.results) :]]
        times = [self._typical(step.stage.name, step.round_id) for step in ahead]
        if None in times:
            return "time left not known yet"
        minutes = sum(filter(None, times)) / self._jobs / 60
        if minutes < 1:
            return "less than a minute left"
        return f"about {minutes:.0f} min left" if minutes < 90 else f"about {minutes / 60:.1f} h left"

    def _typical(self, stage: str, round_id: str) -> float | None:
        """The mean of that stage in that round, or else in any; None where it has not run yet."""
        known = self._seconds.get((stage, round_id)) or [
            second for (name, _), seconds in self._seconds.items() if name == stage for second in seconds
        ]
        return sum(known) / len(known) if known else None

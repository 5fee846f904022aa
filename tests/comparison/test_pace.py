"""What is said while a comparison runs: which round is done, how many lineages, how long the rest takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapt_inf.comparison.pace import Pace
from adapt_inf.comparison.pipeline import Stage
from adapt_inf.comparison.plan import Lineage
from adapt_inf.comparison.store import Result
from adapt_inf.comparison.walk import Step


@dataclass
class Two:
    """A walk of two rounds of two stages."""

    line: Lineage
    results: list[Result] = field(default_factory=list)

    @property
    def steps(self) -> list[Step]:
        stages = [Stage(name, (), (), name) for name in ("train", "evaluate")]
        return [Step(at, "", "shapes", stage) for at in ("r001", "r002") for stage in stages]

    @property
    def done(self) -> bool:
        return len(self.results) == 4

    def gain(self, *seconds: float) -> int:
        before = len(self.results)
        report = {"average_accuracy": 0.5}
        self.results += [Result("", {"seconds": each, "report": report}) for each in seconds]
        return before


def test_lines_count_what_is_done_and_say_what_is_left() -> None:
    walks = [Two(Lineage((), "random", seed)) for seed in (0, 1)]
    pace = Pace(walks, jobs=2)  # type: ignore[arg-type]

    def said(walk: Two, *seconds: float) -> list[str]:
        before = walk.gain(*seconds)
        pace.add(walk, before)  # type: ignore[arg-type]
        return list(pace.lines(walk, before))  # type: ignore[arg-type]

    assert said(walks[0], 200) == []  # no round is done yet
    (first,) = said(walks[0], 100)  # and three more of 300 s, two at a time
    assert first == "seed 0 random  r001 shapes  average 0.500  300 s  | 0 of 2 lineages, about 8 min left"
    (second,) = said(walks[0], 500, 100)
    assert "1 of 2 lineages, about 8 min left" in second  # 200 + 100, and 500 + 100 for the second round
    assert said(walks[1], 200, 100, 500, 100)[-1].endswith("2 of 2 lineages, less than a minute left")


def test_what_has_not_run_yet_is_not_known() -> None:
    first, other = Two(Lineage((), "random", 0)), Two(Lineage((), "full", 0))
    pace = Pace([first, other], jobs=1)  # type: ignore[list-item]
    first.gain(1, 1)
    assert next(pace.lines(first, 0)).endswith("time left not known yet")  # type: ignore[arg-type]

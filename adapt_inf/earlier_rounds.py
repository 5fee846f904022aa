"""What the latest rounds on this machine took: seconds and memory of their stages, and what they left on disk."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from adapt_inf import lineage
from adapt_inf.config import Params
from adapt_inf.project import BASE, Project
from adapt_inf.selection.blocks import cores
from adapt_inf.sketching.store import spans
from adapt_inf.stages.runner import OUTPUTS, STAGES, stage_outcome
from adapt_inf.storage import Cache, records

_MEASURED = 5  # rounds, the latest: the model, the parameters and the machine change over time
_GPU = Path("/dev/nvidiactl")
_APART = 1.5  # largest of the sizes over the smallest, from where on a line says more than a ratio


def models_asked(parent: str) -> int:
    """Models beside the round's own that answer a new suite: the base, and the parent where that is another."""
    return 1 if parent == BASE else 2


class EarlierRounds:
    """What the latest finished rounds on this machine took.

    Args:
        project: whose they are.
        params: of the round that they are to foretell: who shares its work, and in parts of which size.
    """

    def __init__(self, project: Project, params: Params) -> None:
        self._project = project
        finished = [each for each in lineage.rounds(project) if each.status == "finished"]
        logged = [each for each in finished if all(self._log(each.round, stage).is_file() for stage in STAGES)]
        self._parents = {each.round: each.parent for each in logged[-_MEASURED:]}
        self.rounds = list(self._parents)
        self._outcomes = {
            (each, stage): stage_outcome(project, each, stage, cached=False) for each in self.rounds for stage in STAGES
        }
        self._records = records(project)
        shard, executor = params.sketch.shard_samples, params.executor
        self._parts = {"sketch": shard, "score": shard, "evaluate": params.evaluate.part_samples}
        self._shared = executor.kind == "local" and executor.launcher is None and not _GPU.exists()

    def _log(self, round_id: str, stage: str) -> Path:
        return self._project.log(round_id) / f"{stage}.json"

    def seconds(self, stage: str, work: float) -> float | None:
        """Of a stage over `work` samples, by the median rate of the earlier rounds."""
        taken, span = [], self.span(stage, work)
        for each in self.rounds:
            if done := self._work(each, stage):
                taken.append(self._outcomes[each, stage]["seconds"] * span / self.span(stage, done))
        return statistics.median(taken) if taken else None

    def line(self, stage: str) -> tuple[float, float] | None:
        """Seconds that a stage takes whatever its size, and per sample of its `span`, as the earlier rounds tell it.

        A least-squares line where their sizes differ enough to tell both apart; else all is per sample.
        """
        points = [
            (self.span(stage, done), float(self._outcomes[each, stage]["seconds"]))
            for each in self.rounds
            if (done := self._work(each, stage))
        ]
        if not points:
            return None
        sizes = [size for size, _ in points]
        if max(sizes) > _APART * min(sizes):
            slope, fixed = statistics.linear_regression(*zip(*points, strict=True))
            if slope > 0 and fixed > 0:
                return fixed, slope
        return 0.0, statistics.median(seconds / size for size, seconds in points)

    def span(self, stage: str, work: float) -> float:
        """Samples that the process with the most of them goes over, where the cores share whole parts."""
        if stage not in self._parts or not self._shared:
            return work
        parts = [stop - start for start, stop in spans(round(work), self._parts[stage])]
        return float(max((sum(parts[rank :: cores()]) for rank in range(cores())), default=0))

    def clusters_by_root(self) -> float | None:
        """What `cluster.k: auto` came to, over the root of the candidates: the median of the earlier rounds."""
        reports = [self._outcomes[each, "cluster"]["report"] for each in self.rounds]
        found = [report["k"] / math.sqrt(report["samples"]) for report in reports if report["samples"]]
        return statistics.median(found) if found else None

    def tokens(self) -> float | None:
        """Of a sample that was trained on, pictures included and padding not: the median of the earlier rounds."""
        reports = [self._outcomes[each, "train"]["report"] for each in self.rounds]
        found = [r["tokens_per_second"] / r["samples_per_second"] for r in reports if r["samples_per_second"]]
        return statistics.median(found) if found else None

    def _work(self, round_id: str, stage: str) -> int:
        """Samples that a stage went over in the seconds that its log gives."""
        report = self._outcomes[round_id, stage]["report"]
        if stage == "train":
            return int(report.get("trained_samples", 0))
        if stage == "evaluate":
            new = self._outcomes[round_id, "ingest"]["report"]["eval"]
            asked = int(report["samples"]) + new * models_asked(self._parents[round_id])
            return int(report.get("answers", asked)) - report.get("resumed", 0)
        return int(report.get("read", report.get("samples", report.get("candidates", 0)))) - report.get("resumed", 0)

    def memory_mb(self, stage: str) -> float | None:
        return max((self._outcomes[each, stage]["peak_memory_mb"] for each in self.rounds), default=None)

    def overhead(self) -> float | None:
        """Seconds between the end of one stage and the end of the next beyond what the next itself took.

        The median over stages and rounds: where a round was cut off in the night, one such time is hours.
        """
        gaps = []
        for each in self.rounds:
            ends = [self._log(each, stage).stat().st_mtime for stage in STAGES]
            for stage, before, end in zip(STAGES[1:], ends, ends[1:], strict=False):
                gaps.append(end - before - self._outcomes[each, stage]["seconds"])
        return max(0.0, statistics.median(gaps)) if gaps else None

    def bytes(self, stage: str, work: float) -> int | None:
        """What a stage over `work` samples leaves, by the median of the earlier rounds; a model does not grow."""
        sizes = []
        for each in self.rounds:
            record = self._records.get(f"rounds/{each}/{OUTPUTS[stage]}")
            done = int(self._outcomes[each, stage]["report"].get("samples", 0)) or self._work(each, "sketch")
            if record is not None:
                sizes.append(record.size if stage == "train" else record.size * work / max(1, done))
        return round(statistics.median(sizes)) if sizes else None

    def pool_bytes(self) -> int | None:
        """What a pool version adds to its parent's and to what ingest left: the manifest and shards written anew."""
        cache, added = Cache.of(self._project), []
        for each, parent in self._parents.items():
            paths = [f"rounds/{each}/pool", f"rounds/{parent}/pool", f"rounds/{each}/ingest"]
            pool, *others = [cache.listing(self._records[path].md5) for path in paths if path in self._records]
            if pool is not None:
                new = set(pool.values()) - {md5 for other in others for md5 in (other or {}).values()}
                added.append(sum(_size(cache.object(md5)) for md5 in new))
        return round(statistics.median(added)) if added else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

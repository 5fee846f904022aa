"""Which round the head is at, and with it the champion: the gate that judges a round, and every move.

A round that has run all its stages is judged against its parent by `gate` of its params.yaml. Passed: the head moves to
it. Failed: it stays, marked, and the head stays where it is. With `approval: required` one that passed waits for
`promote` or `decline`. `rollback` takes the head to any round that may be built on, or to the base. Nothing is deleted.

A change is written down first, then carried out: the round's record, the history, the head, git, MLflow. Every part may
be done twice, so a killed process's change is carried out again by whoever holds the writer's place next (`settle`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from adapt_inf import history, lineage, versions
from adapt_inf.config import Gate, load_params
from adapt_inf.errors import RoundError
from adapt_inf.history import Move
from adapt_inf.lineage import Round
from adapt_inf.project import BASE, Project
from adapt_inf.review.round_files import RoundFiles
from adapt_inf.tracking import moves as tracked_moves
from adapt_inf.tracking import rounds as tracked
from adapt_inf.tracking.outbox import HEAD, tell
from adapt_inf.writer import writer_lock

PASSED, FAILED, WAITING, PROMOTED, DECLINED = "passed", "failed", "waiting", "promoted", "declined"

_NEEDED = ("pool", "model", "evaluate")  # by a round that builds on another
_ROUNDING = 1e-9  # a score is a mean: .3 - .2 may come out above .1


# --- the gate ---------------------------------------------------------------------------------------------------------


def judge(project: Project, round_id: str) -> dict[str, Any]:
    """What the gate of a round that has been evaluated comes to: verdict, reasons where it failed, figures.

    The parent's scores stand in the round's matrix, also on the skills that are new.
    """
    gate = load_params(project.params_of(round_id)).gate
    files = RoundFiles(project, round_id)
    values = files.matrix["values"]
    figures = compare(values.get(files.metrics["parent"], {}), values[round_id])
    reasons = _reasons(gate, figures)
    passed = WAITING if gate.approval == "required" else PASSED
    return {"verdict": FAILED if reasons else passed, "reasons": reasons, "figures": figures}


def compare(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """The figures of the gate, from the scores of the parent and of the round.

    Returns:
        average_accuracy: mean of `after`; max_forgetting: the largest fall of a skill, below zero where all rose, and
        max_forgetting_skill; relative_gain: 100 x mean over the skills that the parent scores on of after / before.
        None where there is nothing to average or compare.
    """
    falls = sorted(((before[skill] - score, skill) for skill, score in after.items() if skill in before), reverse=True)
    gains = [100 * after[skill] / score for skill, score in before.items() if skill in after and score > 0]
    return {
        "average_accuracy": sum(after.values()) / len(after) if after else None,
        "max_forgetting": falls[0][0] if falls else None,
        "max_forgetting_skill": falls[0][1] if falls else None,
        "relative_gain": sum(gains) / len(gains) if gains else None,
    }


def _reasons(gate: Gate, figures: Mapping[str, Any]) -> list[str]:
    reasons = []
    fall, limit = figures["max_forgetting"], gate.max_forgetting
    if limit is not None and fall is not None and fall > limit + _ROUNDING:
        reasons.append(
            f"{figures['max_forgetting_skill']} fell by {fall:.3f}, more than {limit:g} (gate.max_forgetting)"
        )
    average, least = figures["average_accuracy"], gate.min_average_accuracy
    if least is not None and average is None:
        reasons.append("no skill was evaluated, and gate.min_average_accuracy is set")
    elif least is not None and average < least - _ROUNDING:
        reasons.append(f"average accuracy {average:.3f} is below {least:g} (gate.min_average_accuracy)")
    gain, least = figures["relative_gain"], gate.min_relative_gain
    if least is not None and gain is not None and gain < least - _ROUNDING:
        reasons.append(f"relative gain {gain:.1f}% is below {least:g}% (gate.min_relative_gain)")
    return reasons


# --- what moves the head ----------------------------------------------------------------------------------------------


def conclude(project: Project, round_id: str) -> Round:
    """End a round whose stages have all run: judge it, register its model, move the head if it may, commit.

    The caller holds the writer's place.
    """
    settle(project)
    if (record := lineage.read_round(project, round_id)).status == "finished":
        return record
    record = lineage.gather_facts(project, round_id)
    gate, at = judge(project, round_id), lineage.head(project)
    if gate["verdict"] != FAILED and at not in (record.parent, round_id):
        left = f"it builds on {record.parent}, and the head has gone to {at} since"
        gate |= {"verdict": FAILED, "reasons": [left]}
    why = f"took in {record.drop}"
    move = Move.now(round_id, at, "round", why, None) if gate["verdict"] == PASSED and at != round_id else None
    message = f"Round {round_id}: take in {record.drop} ({record.strategy})"
    record = replace(record, status="finished", gate=gate)
    _carry_out(project, _Change("round", round_id, message, record, move))
    return lineage.read_round(project, round_id)


def promote(
    project: Project, round_id: str, by: str | None = None, why: str = "", *, wait: bool = False
) -> Move | None:
    """Move the head to a round that waits for approval, failed its gate or was declined; None: it is there already.

    Takes the writer's place itself, as `decline` and `rollback` do.

    Args:
        by: who decides; whoever runs this process when left out.
        why: in their words.
        wait: for another process that is at work, instead of refusing.

    Raises:
        RoundError: there is no such round, it is not finished, or its gate never stood in the way.
    """
    with writer_lock(project, wait=wait):
        settle(project)
        record = _finished(project, round_id)
        at = lineage.head(project)
        if record.verdict not in (WAITING, FAILED, DECLINED):
            if at == round_id:
                return None
            raise RoundError(
                round_id, "no gate holds it back", f"`adapt-inf rollback {round_id}` takes the head to it."
            )
        _check_outputs(project, round_id)
        assert record.gate is not None
        record = replace(record, gate=record.gate | {"verdict": PROMOTED})
        move = Move.now(round_id, at, "promote", why, by)
        _carry_out(project, _Change("promote", round_id, _message(f"Promote {round_id}", why), record, move))
    return move


def decline(project: Project, round_id: str, by: str | None = None, why: str = "", *, wait: bool = False) -> bool:
    """Refuse a round that waits for approval: the head stays, and the drops behind it go on; False: it is so already.

    Raises:
        RoundError: there is no such round, or it does not wait.
    """
    with writer_lock(project, wait=wait):
        settle(project)
        record = _finished(project, round_id)
        if record.verdict == DECLINED:
            return False
        if record.verdict != WAITING or record.gate is None:
            raise RoundError(round_id, "it does not wait for approval", "`adapt-inf status` names the rounds that do.")
        said = f"declined by {by or history.whoami()}" + (f": {why}" if why else "")
        record = replace(record, gate=record.gate | {"verdict": DECLINED, "reasons": [*record.gate["reasons"], said]})
        _carry_out(project, _Change("decline", round_id, _message(f"Decline {round_id}", why), record))
    return True


def rollback(
    project: Project, round_id: str, by: str | None = None, why: str = "", *, wait: bool = False
) -> Move | None:
    """Move the head to another round, or to the base, where the next round will branch; None: it is there already.

    Raises:
        RoundError: there is no such round, none may build on it, or its pool or model is not on this machine.
    """
    with writer_lock(project, wait=wait):
        settle(project)
        if round_id != BASE and (fault := _finished(project, round_id).fault) is not None:
            raise RoundError(round_id, f"it {fault}", f"`adapt-inf promote {round_id}` takes the head to it.")
        at = lineage.head(project)
        if at == round_id:
            return None
        _check_outputs(project, round_id)
        move = Move.now(round_id, at, "rollback", why, by)
        _carry_out(project, _Change("rollback", round_id, _message(f"Roll back to {round_id}", why), move=move))
    return move


def settle(project: Project) -> None:
    """Carry out what a killed process had begun. The caller holds the writer's place."""
    change = history.half_done(project)
    if change is not None:
        _carry_out(project, _Change.from_json(change))


# --- a change, in steps that may each be done twice -------------------------------------------------------------------


@dataclass(frozen=True)
class _Change:
    """What is written down before it is done: the record and the move as they will stand, the message of the commit."""

    kind: Literal["round", "rollback", "promote", "decline"]
    round: str
    message: str
    record: Round | None = None
    move: Move | None = None

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {
            "record": self.record.to_json() if self.record else None,
            "move": self.move.to_json() if self.move else None,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> _Change:
        record, move = values["record"], values["move"]
        parts = {"record": Round(**record) if record else None, "move": Move.from_json(move) if move else None}
        return cls(**(values | parts))


def _carry_out(project: Project, change: _Change) -> None:
    from adapt_inf.review.report import make_report, show_verdict

    history.begin(project, change.to_json())
    record, name = change.record, change.round
    if record is not None and change.kind == "round":
        facts = {key: getattr(record, key) for key in ("pool_hash", "parent", "drop", "strategy")}
        make_report(project, record.to_json())
        version = tell(project, name, tracked.finish_round, project, name, "finished", facts)
        record = replace(record, model_version=version)
    if record is not None:
        lineage.write_round(project, record)
        entry = record.to_json()
        show_verdict(project, entry)
        tell(project, name, tracked.tag_gate, project, entry)
    if change.move is not None:
        history.append(project, change.move)
        lineage.move_head(project, change.move.round)
    _commit(project, change)
    if change.move is not None:
        moves = [move.to_json() for move in history.moves(project)]
        entries = lineage.entries(project)
        tell(project, HEAD, tracked_moves.show_moves, project, change.move.round, entries, moves)
    history.end(project)


def _commit(project: Project, change: _Change) -> None:
    # The project's setting and not the round's frozen one: who is told to switch it off can, with a round under way.
    if not load_params(project.params_file).git.commit:
        return
    if change.kind == "round":
        commit = versions.commit_round(project, change.round, change.message)
        tell(project, change.round, tracked.tag_commit, project, change.round, commit)
    else:
        versions.commit_files(project, change.message)


def _finished(project: Project, round_id: str) -> Round:
    record = lineage.read_round(project, round_id)
    if record.status != "finished":
        raise RoundError(round_id, f"it {record.fault}", "`adapt-inf round` goes on with it.")
    return record


def _check_outputs(project: Project, round_id: str) -> None:
    gone = [name for name in _NEEDED if not project.output(round_id, name).exists()]
    if gone:
        problem = f"its {' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not on this machine"
        raise RoundError(round_id, problem, f"Bring it here with `adapt-inf pull {round_id}`.")


def _message(title: str, why: str) -> str:
    return f"{title}: {why}" if why else title

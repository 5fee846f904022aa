"""Run a score, and hold what a package brings to what a score may give back.

A score of someone else's cannot hurt a round: it gets copies of the signals, a generator of its own, and whatever it
does wrong ends in an error that names it, the package that brought it and the mend, before anything is written.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from adapt_inf.errors import ScoreError
from adapt_inf.selection.arrays import BoolArray, FloatArray
from adapt_inf.selection.scores.base import VECTORS, Score, Signals
from adapt_inf.selection.scores.registry import origin

_NUMBERS = "biuf"  # kinds of numpy types that are real numbers


def compute(score: Score, signals: Signals, seed: int) -> FloatArray:
    """The values of a score, checked.

    Random draws depend on `seed` and the score's name alone, not on the other scores.

    Args:
        score: built in or of an installed package.
        signals: those that it needs, (n,) each, nan where a sample has none; or `Vectors`.
        seed: the round's.

    Returns:
        (n,) float64, nan for a sample without a value.

    Raises:
        ScoreError: `compute` raised, or returned something that is not n numbers, infinite numbers, or nothing but nan
            although there are samples with all the signals that it needs.
    """
    seen = {name: signals[name] if name in VECTORS else signals[name].copy() for name in score.needs}
    for name in seen.keys() - VECTORS:  # a score that writes into its input learns so; the copy is what protects
        seen[name].flags.writeable = False
    rng = np.random.default_rng([seed, zlib.crc32(score.name.encode())])
    try:
        values = score.compute(seen, rng)
    except (Exception, SystemExit) as error:  # foreign code: whatever it raises is its fault, and has the same mend
        raise _error(score, f"`compute` raised {type(error).__name__}: {error}") from error
    n = len(signals[score.needs[0]])
    numbers = _numbers(score, values, n)
    if infinite := int(np.isinf(numbers).sum()):
        raise _error(score, f"{infinite} of its {n} values are infinite; nan says that a sample has none")
    there = _has_signals(score, signals)
    if there.any() and np.isnan(numbers[there]).all():
        raise _error(score, f"all its values are nan, though {int(there.sum())} samples have the signals it needs")
    return numbers


def without_value(score: Score, signals: Signals, values: FloatArray) -> int:
    """How many samples got no value (nan), though they have all the signals that the score needs."""
    return int((np.isnan(values) & _has_signals(score, signals)).sum())


def _has_signals(score: Score, signals: Signals) -> BoolArray:
    there = np.ones(len(signals[score.needs[0]]), dtype=bool)
    for name in score.needs:
        if name not in VECTORS:
            there &= ~np.isnan(signals[name])
    return there


def _numbers(score: Score, values: Any, n: int) -> FloatArray:
    try:
        array = np.asarray(values)
        numbers = array.astype(np.float64) if array.dtype.kind in _NUMBERS or array.dtype == object else None
    except Exception as error:  # `values` may be any object, and its conversion any code
        problem = f"`compute` returned {type(values).__name__}, which is no array of numbers: {error}"
        raise _error(score, problem) from error
    if numbers is None:
        raise _error(score, f"`compute` returned values of type {array.dtype}, not real numbers")
    if numbers.shape != (n,):
        raise _error(score, f"`compute` returned an array of shape {numbers.shape} for {n} samples, not ({n},)")
    return numbers


def _error(score: Score, problem: str) -> ScoreError:
    return ScoreError(score.name, origin(score.name), problem)

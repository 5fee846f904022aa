"""Running a score: what it returns is checked, and what it does wrong is named and reaches nothing else."""

import numpy as np
import pytest

from adapt_inf.errors import ScoreError
from adapt_inf.selection.scores import compute, resolve, without_value


def signals_of(n=6):
    rng = np.random.default_rng(0)
    values = {name: rng.exponential(size=n) for name in ("nll", "el2n", "entropy", "grand", "nll_without_image")}
    values["nll_without_image"][2] = np.nan  # text-only
    values["grand"][n - 1] = np.nan
    return values


class Brought:
    """A score whose `compute` is a function of the signals."""

    def __init__(self, function, needs=("nll", "grand")):
        self.name, self.needs, self._function = "brought", needs, function

    def compute(self, signals, rng):
        return self._function(signals)


@pytest.mark.parametrize("name", ["perplexity", "el2n", "entropy", "grand", "image_grounding", "random"])
def test_built_in_scores_pass(name):
    signals = signals_of()
    score = resolve([name])[0]
    expected = score.compute(signals, np.random.default_rng(0))
    values = compute(score, signals, 3)
    assert values.dtype == np.float64
    if name != "random":
        assert np.array_equal(values, expected, equal_nan=True)
    assert np.array_equal(values, compute(score, signals, 3), equal_nan=True)
    assert without_value(score, signals, values) == 0


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2, 3, 4, 5],
        np.arange(6, dtype=np.float16),
        np.arange(6) % 2 == 0,
        [None, 1.5, 2, 3, 4, 5],
        np.arange(6, dtype=np.uint8),
    ],
)
def test_any_real_numbers_become_float64(values):
    found = compute(Brought(lambda signals: values), signals_of(), 0)
    assert found.dtype == np.float64
    assert found.shape == (6,)
    assert np.array_equal(found, np.array(values, dtype=np.float64), equal_nan=True)


def raises(error):
    def function(signals):
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda s: s["nll"][:-1], r"an array of shape \(5,\) for 6 samples"),
        (lambda s: s["nll"][:, None], r"shape \(6, 1\)"),
        (lambda s: 1.0, r"shape \(\)"),
        (lambda s: None, r"shape \(\) for 6 samples|no array of numbers"),
        (lambda s: ["high"] * 6, "not real numbers"),
        (lambda s: s["nll"] * 1j, "complex128, not real numbers"),
        (lambda s: np.array(["2020-01-01"] * 6, dtype="datetime64[D]"), "not real numbers"),
        (lambda s: [[1], [1, 2], 3, 4, 5, 6], "no array of numbers"),
        (lambda s: [object()] * 6, "no array of numbers"),
        (lambda s: np.full(6, np.nan), "all its values are nan, though 5 samples"),
        (lambda s: np.array([0, 1, 2, np.inf, 4, -np.inf]), "2 of its 6 values are infinite"),
        (lambda s: s["entropy"], "raised KeyError: 'entropy'"),
        (lambda s: s["nll"].sort(), "raised ValueError: .*read-only"),
        (raises(SystemExit(1)), "raised SystemExit: 1"),
        (raises(MemoryError("too much")), "raised MemoryError: too much"),
    ],
)
def test_a_fault_names_the_score_and_the_mend(function, problem):
    with pytest.raises(ScoreError, match=problem) as caught:
        compute(Brought(function), signals_of(), 0)
    assert str(caught.value).startswith("score brought (")
    assert "take brought out of `select` in the round's params.yaml" in str(caught.value)


def test_a_score_cannot_change_the_signals_even_if_it_tries_hard():
    signals = signals_of()
    before = {name: values.copy() for name, values in signals.items()}

    def vandal(seen):
        seen["nll"].flags.writeable = True
        seen["nll"][:] = 7
        return seen["nll"]

    assert compute(Brought(vandal), signals, 0).tolist() == [7] * 6
    assert all(np.array_equal(signals[name], before[name], equal_nan=True) for name in signals)


def test_nan_is_no_value_and_counted_where_the_signals_are_there():
    signals = signals_of()
    score = Brought(lambda s: np.where(np.arange(6) < 2, np.nan, s["grand"]))
    values = compute(score, signals, 0)
    assert np.isnan(values).sum() == 3
    assert without_value(score, signals, values) == 2


def test_a_score_of_pictures_may_say_nothing_of_a_text_only_pool():
    signals = signals_of() | {"nll_without_image": np.full(6, np.nan)}
    for score in (resolve(["image_grounding"])[0], Brought(lambda s: s["nll_without_image"], ("nll_without_image",))):
        assert np.isnan(compute(score, signals, 0)).all()
        assert without_value(score, signals, np.full(6, np.nan)) == 0


def test_no_samples_are_no_fault():
    empty = {name: np.empty(0) for name in ("nll", "grand")}
    assert len(compute(Brought(lambda s: s["nll"] * 2), empty, 0)) == 0


def test_randomness_depends_on_the_seed_and_the_name_alone():
    class Dice(Brought):
        def compute(self, signals, rng):
            return rng.random(6)

    first, again = (compute(Dice(None), signals_of(), 5) for _ in range(2))
    other = Dice(None)
    other.name = "other"
    assert np.array_equal(first, again)
    assert not np.array_equal(first, compute(other, signals_of(), 5))
    assert not np.array_equal(first, compute(Dice(None), signals_of(), 6))

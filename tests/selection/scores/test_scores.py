"""Each built-in score against its definition, from token probabilities up."""

import numpy as np
import pytest

from adapt_inf.selection.scores import draw_of, resolve


@pytest.fixture
def signals():
    rng = np.random.default_rng(0)
    names = ("nll", "el2n", "entropy", "grand", "nll_without_image")
    values = {name: rng.exponential(size=6) for name in names}
    values["nll_without_image"][2] = np.nan  # text-only
    return values


@pytest.mark.parametrize(
    ("name", "signal"), [("perplexity", "nll"), ("el2n", "el2n"), ("entropy", "entropy"), ("grand", "grand")]
)
def test_a_free_score_is_its_signal_and_a_copy(signals, name, signal):
    values = resolve([name])[0].compute(signals, np.random.default_rng(0))
    assert np.array_equal(values, signals[signal])
    values[:] = 0
    assert signals[signal].all()


def test_image_grounding_is_the_log_of_a_ratio_of_perplexities(signals):
    values = resolve(["image_grounding"])[0].compute(signals, np.random.default_rng(0))
    assert np.isnan(values[2])
    ratio = np.exp(signals["nll_without_image"]) / np.exp(signals["nll"])
    assert np.allclose(values, np.log(ratio), equal_nan=True)


def test_visual_necessity_is_what_the_loss_falls_by(signals):
    (score,) = resolve(["visnec"])
    values = score.compute(signals, np.random.default_rng(0))
    assert np.array_equal(values, signals["nll_without_image"] - signals["nll"], equal_nan=True)
    assert draw_of(score) == "highest"


def test_random_is_seeded_and_uniform():
    score = resolve(["random"])[0]
    signals = {"nll": np.zeros(10_000)}
    values = score.compute(signals, np.random.default_rng(4))
    assert np.array_equal(values, score.compute(signals, np.random.default_rng(4)))
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02


def test_a_score_reads_only_the_signals_it_names(signals):
    for score in resolve(["perplexity", "el2n", "entropy", "grand", "image_grounding", "random"]):
        given = {name: signals[name] for name in score.needs}
        assert score.compute(given, np.random.default_rng(0)).shape == (6,)

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from score_package import installed

from adapt_inf.errors import ConfigError
from adapt_inf.selection.scores import SIGNALS, Score, available, resolve
from adapt_inf.selection.scores.registry import origin

BUILT_IN = ["perplexity", "el2n", "entropy", "grand", "image_grounding", "random"]
BUILT_IN += ["visnec", "rds_plus", "crds_w", "oasis"]

SOURCE = """
class Length:
    name = "answer_length"
    needs = ("nll", "entropy")

    def compute(self, signals, rng):
        return signals["nll"] * 2


class Misnamed(Length):
    name = "something_else"


class Greedy(Length):
    name = "greedy"
    needs = ("attention",)


class Incomplete:
    name = "incomplete"


class Explosive:
    def __init__(self):
        raise ValueError("boom")


class Quits(Length):
    @property
    def name(self):
        raise SystemExit(3)


class OneString(Length):
    name = "one_string"
    needs = "nll"


class Lottery(Length):
    name = "lottery"
    draw = "by lot"
"""

NAMES = {
    "answer_length": "Length",
    "misnamed": "Misnamed",
    "greedy": "Greedy",
    "incomplete": "Incomplete",
    "missing": "Missing",
    "explosive": "Explosive",
    "quits": "Quits",
    "one_string": "OneString",
    "lottery": "Lottery",
    "perplexity": "Length",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    points = {name: f"extra_scores:{place}" for name, place in NAMES.items()}
    with installed(tmp_path, "extra_scores", SOURCE, points, monkeypatch):
        yield tmp_path


def test_the_built_in_scores_are_there():
    assert available()[: len(BUILT_IN)] == BUILT_IN
    scores = resolve(BUILT_IN)
    assert [score.name for score in scores] == BUILT_IN
    assert all(isinstance(score, Score) and score.needs and set(score.needs) <= SIGNALS.keys() for score in scores)


def test_an_unknown_score_is_refused_with_what_there_is():
    with pytest.raises(
        ConfigError, match=r"some\.yaml: `select\.scores`: there is no score best; there are perplexity"
    ):
        resolve(["perplexity", "best"], Path("some.yaml"))


def test_a_score_named_twice_is_refused():
    with pytest.raises(ConfigError, match="named twice"):
        resolve(["el2n", "el2n"])


def test_a_package_brings_a_score(package):
    assert "answer_length" in available()
    score = resolve(["answer_length"])[0]
    assert score.compute({"nll": np.ones(3), "entropy": np.ones(3)}, np.random.default_rng(0)).tolist() == [2, 2, 2]


def test_two_packages_that_bring_the_same_score_are_both_named(package, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    with installed(other, "more_scores", SOURCE, {"answer_length": "more_scores:Length"}, monkeypatch):
        with pytest.raises(ConfigError) as caught:
            resolve(["answer_length"])
        assert "of extra-scores 1.0" in str(caught.value)
        assert "of more-scores 1.0" in str(caught.value)


def test_a_score_s_origin_is_its_entry_point_and_package(package):
    assert origin("el2n") == "built in"
    assert origin("answer_length") == "entry point extra_scores:Length of extra-scores 1.0"
    assert origin("perplexity") == "built in"


def test_a_package_cannot_take_a_built_in_name(package):
    assert type(resolve(["perplexity"])[0]).__module__ == "adapt_inf.selection.scores.perplexity"
    assert available().count("perplexity") == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("misnamed", "is no score called misnamed"),
        ("greedy", "needs attention; there are nll"),
        ("incomplete", "is no score called incomplete"),
        ("missing", "cannot be loaded: AttributeError"),
        ("explosive", r"explosive \(entry point extra_scores:Explosive of extra-scores 1\.0\) .* ValueError: boom"),
        ("quits", "cannot be loaded: SystemExit: 3"),
        ("one_string", "needs no signal"),
        ("lottery", "has draw = 'by lot'; there are coverage, highest"),
    ],
)
def test_a_bad_entry_point_is_named(package, name, problem):
    with pytest.raises(ConfigError, match=problem):
        resolve([name])


def test_looking_scores_up_imports_no_torch():
    code = "import sys; from adapt_inf.selection.scores import available, resolve; resolve(available())"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adapt_inf.errors import ConfigError
from adapt_inf.selection.scores import SIGNALS, Score, available, resolve

BUILT_IN = ["perplexity", "el2n", "entropy", "grand", "image_grounding", "random"]

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
"""

POINTS = """[adapt_inf.scores]
answer_length = extra_scores:Length
misnamed = extra_scores:Misnamed
greedy = extra_scores:Greedy
incomplete = extra_scores:Incomplete
missing = extra_scores:Missing
perplexity = extra_scores:Length
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with scores of its own, as pip lays it out."""
    (tmp_path / "extra_scores.py").write_text(SOURCE)
    info = tmp_path / "extra_scores-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-scores\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("extra_scores", None)


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


def test_a_package_cannot_take_a_built_in_name(package):
    assert type(resolve(["perplexity"])[0]).__module__ == "adapt_inf.selection.scores.perplexity"
    assert available().count("perplexity") == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("misnamed", "is no score called misnamed"),
        ("greedy", "needs attention; there are nll"),
        ("incomplete", "is no score called incomplete"),
        ("missing", "cannot be loaded"),
    ],
)
def test_a_bad_entry_point_is_named(package, name, problem):
    with pytest.raises(ConfigError, match=problem):
        resolve([name])


def test_looking_scores_up_imports_no_torch():
    code = "import sys; from adapt_inf.selection.scores import available, resolve; resolve(available())"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""docs/scores.md, as a reader would follow it: the score installed and run, and every fault it may have."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from score_package import installed

from adapt_inf.errors import ConfigError, ScoreError
from adapt_inf.selection.scores import compute, resolve

PAGE = (Path(__file__).parents[3] / "docs" / "scores.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(python|toml|yaml)\n(.*?)```", PAGE, re.DOTALL))
POINTS = tomllib.loads(BLOCKS["toml"])["project"]["entry-points"]["adapt_inf.scores"]
NAMES = yaml.safe_load(BLOCKS["yaml"])["select"]["scores"]
SIGNALS = {"nll": np.array([2.0, 1.0, 3.0]), "entropy": np.array([0.5, 1.0, np.nan])}
RETURN = 'return signals["nll"] - signals["entropy"]'
FAULTS = {row[0]: row[1] for row in re.findall(r"^\| (?!your|-)(.*?) \| (.*?) \|$", PAGE, re.MULTILINE)}

CHANGES = {  # of the page's score, by the words of the page's table
    "is not installed under that name": ("", ""),
    "cannot be imported or made": ("import numpy", "import numpie"),
    "lacks `name`, `needs` or `compute`, or has another name": ("def compute", "def rate"),
    "needs a signal that does not exist": ('("nll", "entropy")', '("nll", "attention")'),
    "has a `draw` that is none": ("def compute", 'draw = "lot"\n\n    def compute'),
    "comes from two packages": ("", ""),
    "raises in `compute`": (RETURN, 'return signals["grand"]'),
    "returns too few or too many values, or a table": (RETURN, 'return signals["nll"][1:]'),
    "returns something else than real numbers": (RETURN, 'return ["high", "low", "low"]'),
    "returns infinite values": (RETURN, 'return signals["nll"] * np.inf'),
    "returns nan for every sample that has the signals it needs": (RETURN, 'return signals["nll"] * np.nan'),
    "returns nan for some of them": (RETURN, "return np.array([np.nan, 1.0, 2.0])"),
    "writes into the signals": (RETURN, 'signals["nll"][0] = 5; return signals["nll"]'),
}


def run(monkeypatch, folder, source=BLOCKS["python"], points=POINTS):
    with installed(folder, "my_scores", source, points, monkeypatch):
        return compute(resolve(NAMES)[-1], SIGNALS, seed=0)


def test_the_page_s_score_works(tmp_path, monkeypatch):
    assert run(monkeypatch, tmp_path).tolist()[:2] == [1.5, 0.0]


def test_the_page_tells_every_fault():
    assert FAULTS.keys() == CHANGES.keys()


@pytest.mark.parametrize("fault", CHANGES)
def test_what_the_page_says_of_a_fault_is_what_happens(fault, tmp_path, monkeypatch):
    source = BLOCKS["python"].replace(*CHANGES[fault])
    points = {} if fault.startswith("is not installed") else POINTS
    if fault.startswith("comes from two"):
        (tmp_path / "first").mkdir()
        with installed(tmp_path / "first", "their_scores", source, POINTS, monkeypatch):
            message = failure(monkeypatch, tmp_path, source, points)
    elif fault == "returns nan for some of them":
        assert np.isnan(run(monkeypatch, tmp_path, source)).tolist() == [True, False, False]
        return
    else:
        assert points == {} or source != BLOCKS["python"]
        message = failure(monkeypatch, tmp_path, source, points)
    (said,) = re.findall(r"error: `(.*?)`", FAULTS[fault])
    assert said in message.replace("`", "")
    assert "confidently_wrong" in message


def failure(monkeypatch, folder, source, points):
    with pytest.raises((ConfigError, ScoreError)) as caught:
        run(monkeypatch, folder, source, points)
    return str(caught.value)


def test_the_page_s_message_is_the_one_printed(tmp_path, monkeypatch):
    message = failure(monkeypatch, tmp_path, BLOCKS["python"].replace(RETURN, 'return signals["grand"]'), POINTS)
    shown = re.search(r"^    adapt-inf: (score .*\n.*)$", PAGE, re.MULTILINE)
    assert shown is not None
    assert [line.strip() for line in shown[1].splitlines()] == [line.strip() for line in message.splitlines()]

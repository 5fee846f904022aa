"""params.yaml: the shipped file is the defaults, and what is wrong in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adapt_inf.config import Params, load_params, parse_params, set_values
from adapt_inf.creation import definition
from adapt_inf.demo.run import PARAMS
from adapt_inf.errors import ConfigError

FILE = Path("params.yaml")


def test_the_shipped_file_holds_the_defaults() -> None:
    assert parse_params(yaml.safe_load(definition("params.yaml")), FILE) == Params()


def test_the_shipped_file_shows_every_key() -> None:
    shown = yaml.safe_load(definition("params.yaml"))
    for name, section in vars(Params()).items():
        assert name in shown
        if hasattr(section, "__dataclass_fields__"):
            assert set(shown[name]) == set(section.__dataclass_fields__)


@pytest.mark.parametrize(
    ("values", "key", "problem"),
    [
        ({"selct": {}}, "selct", "no such key"),
        ({"select": {"budgett": 3}}, "select.budgett", "no such key"),
        ({"select": {"budget": "many"}}, "select.budget", "'many'"),
        ({"select": {"budget": True}}, "select.budget", "True"),
        ({"select": {"budget": 0}}, "select.budget", "greater than 0"),
        ({"select": {"budget": 1.5}}, "select.budget", "a fraction of them up to 1.0, not 1.5"),
        ({"select": {"budget": 1000.0}}, "select.budget", "a whole number of samples"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"select": {"scores": "perplexity"}}, "select.scores", "'perplexity'"),
        ({"sketch": {"layers": "upper"}}, "sketch.layers", "'upper'"),
        ({"train": {"learning_rate": None}}, "train.learning_rate", "None"),
        ({"train": {"steps": 1.5}}, "train.steps", "1.5"),
        ({"train": {"batch_size": 8, "micro_batch": 9}}, "train.micro_batch", "at most train.batch_size, 8, not 9"),
        ({"train": {"micro_batch": 0}}, "train.micro_batch", "greater than 0"),
        ({"prune": None}, "prune", "None"),
        ({"retries": {"count": -1}}, "retries.count", "greater than or equal to 0"),
        ({"retries": {"count": {"trian": 1}}}, "retries.count", "trian"),
        ({"schedule": {"poll_seconds": 0}}, "schedule.poll_seconds", "greater than or equal to 1"),
        ([1, 2], "*", "[1, 2]"),
    ],
)
def test_a_wrong_key_or_type_is_named(values: object, key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_params(values, FILE)
    assert f"params.yaml: `{key}`" in str(caught.value)
    assert problem in str(caught.value)


def test_a_file_that_is_no_yaml_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [1,", encoding="utf-8")
    with pytest.raises(ConfigError, match="this is no YAML"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="not there"):
        load_params(tmp_path / "other.yaml")


@given(
    steps=st.integers(1, 10**6),
    rate=st.floats(1e-8, 1, allow_nan=False),
    strategy=st.sampled_from(["random", "full", "el2n"]),
)
def test_set_values_changes_those_and_nothing_else(steps: int, rate: float, strategy: str) -> None:
    text = definition("params.yaml")
    changed = set_values(text, {"train.steps": steps, "train.learning_rate": rate, "select.strategy": strategy})
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    assert after["train"].pop("steps") == steps
    assert float(after["train"].pop("learning_rate")) == rate
    assert after["select"].pop("strategy") == strategy
    for section, key in (("train", "steps"), ("train", "learning_rate"), ("select", "strategy")):
        del before[section][key]
    assert after == before
    comments = [line.partition(" #")[2] for line in text.splitlines()]
    assert [line.partition(" #")[2] for line in changed.splitlines()] == comments


def test_set_values_refuses_a_key_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        set_values(definition("params.yaml"), {"train.stepps": 1})
    with pytest.raises(KeyError):
        set_values(definition("params.yaml"), {"git.steps": 1})


def test_the_demo_runs_with_parameters_that_are_right() -> None:
    params = parse_params(yaml.safe_load(set_values(definition("params.yaml"), PARAMS)), FILE)
    assert params.select.budget <= 0.3


def test_retries_are_a_count_for_all_stages_or_by_name() -> None:
    assert parse_params({"retries": {"count": 2}}, FILE).retries.of("train") == 2
    by_name = parse_params({"retries": {"count": {"train": 3}}}, FILE).retries
    assert (by_name.of("train"), by_name.of("sketch")) == (3, 0)

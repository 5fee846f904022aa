"""Errors come through a pickle as they are, and never show a password that stands in an address."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from adapt_inf.errors import AdaptInfError, ConfigError, NoRoomError, RoundError, SampleError, shown


@pytest.mark.parametrize(
    "error",
    [
        AdaptInfError("all is lost", "Begin anew."),
        ConfigError(Path("params.yaml"), "seed", "no number"),
        RoundError("r007", "it is no more", "Make it anew."),
        SampleError("d/1", "it is blank"),
        NoRoomError(Path("rounds"), 5, 7),
    ],
)
def test_an_error_comes_through_a_pickle(error: AdaptInfError) -> None:
    error.add_note("in the other process")
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


@pytest.mark.parametrize(
    ("text", "as_shown"),
    [
        ("postgresql://lead:hidden@db/mlflow", "postgresql://lead:***@db/mlflow"),
        ("postgresql+asyncpg://lead:hid/den+=@db:5432/mlflow", "postgresql+asyncpg://lead:***@db:5432/mlflow"),
        ("https://lead:hid@den@mlflow.example.org is away", "https://lead:***@mlflow.example.org is away"),
        ("https://:hidden@mlflow.example.org", "https://:***@mlflow.example.org"),
        ("postgresql://db/mlflow?user=lead&password=hidden&x=1", "postgresql://db/mlflow?user=lead&password=***&x=1"),
        ("https://lead@db:5000/x is away", "https://lead@db:5000/x is away"),
        ("http://127.0.0.1:5000/api (mail lead@example.org)", "http://127.0.0.1:5000/api (mail lead@example.org)"),
        ("s3://drops/birds: nothing is there", "s3://drops/birds: nothing is there"),
    ],
)
def test_a_password_is_not_shown(text: str, as_shown: str) -> None:
    assert shown(text) == as_shown
    error = AdaptInfError(text, f"See {text}")
    assert str(error) == f"{as_shown}\n  See {as_shown}"
    assert (error.message, error.mend) == (as_shown, f"See {as_shown}")

"""The score of docs/scores.md, as a reader would copy it."""

import re
import tomllib
from pathlib import Path

import numpy as np
import yaml

from adapt_inf.selection.scores import resolve

PAGE = Path(__file__).parents[3] / "docs" / "scores.md"


def test_the_page_s_score_works(tmp_path, monkeypatch):
    blocks = dict(re.findall(r"```(python|toml|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    (tmp_path / "my_scores.py").write_text(blocks["python"])
    points = tomllib.loads(blocks["toml"])["project"]["entry-points"]["adapt_inf.scores"]
    info = tmp_path / "my_scores-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-scores\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[adapt_inf.scores]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    score = resolve(yaml.safe_load(blocks["yaml"])["select"]["scores"])[-1]
    signals = {"nll": np.array([2.0, 1.0]), "entropy": np.array([0.5, 1.0])}
    assert score.compute(signals, np.random.default_rng(0)).tolist() == [1.5, 0.0]

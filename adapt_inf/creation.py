"""Make a project: its definition, the model and pool where its lineage starts, and what that model knows.

Everything is made in a hidden folder beside the target and renamed at the end, so a failed or killed `init` leaves no
project. Imports torch: run it in a process of its own.
"""

from __future__ import annotations

import uuid
from importlib import resources
from pathlib import Path

from adapt_inf import versions
from adapt_inf.config import load_params, set_values
from adapt_inf.files import new_folder, write_json
from adapt_inf.project import BASE, PROXY, SOURCE, Project


def definition(name: str) -> str:
    """The text of `params.yaml` or `dvc.yaml` as the package ships it."""
    return (resources.files("adapt_inf") / "definition" / name).read_text(encoding="utf-8")


def shipped_model() -> str:
    """The folder of the tiny base model inside the package."""
    return str(resources.files("adapt_inf") / "demo" / BASE)


def create_project(target: Path, model: str, pool: Path | None, params_text: str, proxy: str | None = None) -> Project:
    """Make a project at `target` that starts from `model`.

    Args:
        target: a folder that is not there yet, or empty.
        model: a folder or a hub id of an image-text-to-text model.
        pool: a drop folder with what the model was trained on and a suite that tests it; None: an empty pool.
        params_text: the project's params.yaml.
        proxy: a model, named like `model`, that looks at the candidates in its place; `sketch.model` is then set to it.

    Raises:
        AdaptInfError: `target` is not empty, or what `model`, `pool`, `params_text` or `proxy` is at fault with.
    """
    from adapt_inf.data.drops import read_drop
    from adapt_inf.data.pool import create_base_pool
    from adapt_inf.models.importing import import_model
    from adapt_inf.stages.evaluate import evaluate_base

    with new_folder(target) as beside:
        project = Project(beside)
        base = project.round(BASE)
        base.mkdir(parents=True)
        project.drops.mkdir()
        text = params_text if proxy is None else set_values(params_text, {"sketch.model": PROXY})
        project.params_file.write_text(text, encoding="utf-8")
        (beside / "dvc.yaml").write_text(definition("dvc.yaml"), encoding="utf-8")
        params = load_params(project.params_file)
        source = import_model(model, base / "model") | {"project": uuid.uuid4().hex}
        if proxy is not None:
            source[PROXY] = import_model(proxy, base / PROXY)
        if pool is not None:
            held = read_drop(pool)
            source["pool"] = {"drop": held.name, "license": held.license}
        write_json(base / SOURCE, source)
        create_base_pool(base / "pool", pool, params)
        evaluate_base(project, params)
        versions.create_repository(beside, git=params.git.commit)
        versions.add_outputs(beside, [f"rounds/{BASE}/{name}" for name in project.base_outputs()])
        if params.git.commit:
            versions.commit_round(project, BASE, f"Begin a lineage from {Path(model).name}")
    return Project(target.resolve())

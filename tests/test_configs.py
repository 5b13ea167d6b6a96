"""Every config file composes, and opens with the command that runs it."""

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from cv_lab.config import LONGEST_NAME, plain, register_config, trial_name
from cv_lab.training.class_weights import with_class_weights
from tests.conftest import ROOT

CONF = ROOT / "conf"
# Files whose name begins with an underscore are no options, but shared by some.
OPTIONS = [path for path in sorted(CONF.glob("*/[!_]*.yaml")) if path.parent.name != "hydra"]


@cache
def composed(group: str, option: str) -> DictConfig:
    """The config with an option of a group, of callbacks beside the default ones."""
    register_config()
    options = ["default", option] if group == "callbacks" and option != "default" else [option]
    choice = f"[{','.join(options)}]" if group in ("callbacks", "logger") else option
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"{group}={choice}", "trial_dir=/tmp/never-written", "study=s"])


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_composes_and_instantiates(path: Path) -> None:
    config = composed(path.parent.name, path.stem)
    for key in ("data", "model", "optimizer", "scheduler", "augmentation", "logger", "callbacks", "pictures"):
        instantiate(config[key])
    if config.loss is not None:
        instantiate(with_class_weights(plain(config.loss), ("background", "object"), None))


@pytest.mark.parametrize("name", [path.stem for path in OPTIONS if path.parent.name == "experiment"])
def test_experiments_take_the_embedded_scenes(name: str) -> None:
    """What an experiment says of its data set must not be what other data sets do not know."""
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"experiment={name}", "data=shapes", "data.train_count=400", "data.test_count=8"]
        config = compose("train", [*overrides, "batch_size=4", "trial_dir=/tmp/never-written"])
    data = instantiate(config.data)
    data.setup()
    assert len(data.classes) == 8
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 48, 48)


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_opens_with_the_command_that_runs_it(path: Path) -> None:
    head = path.read_text().splitlines()[:2]
    assert any(line.startswith("# python train.py") and path.parent.name in line for line in head), head


def test_trial_names_are_readable_and_safe() -> None:
    assert trial_name([]) == "default"
    where = ["study=x", "data_dir=/a/b", "data.verify_checksum=false"]
    assert trial_name(["optimizer=adam", "lr=0.01", *where]) == "lr=0.01,optimizer=adam"
    assert trial_name(["+data.root=/home/me/my pictures"]) == "data.root=my-pictures"
    long = trial_name([f"model.option_{number}={number}" for number in range(40)])
    assert len(long.encode()) <= LONGEST_NAME
    assert long != trial_name([f"model.option_{number}={number}" for number in range(41)])


def given_by_options() -> dict[str, list[dict[str, Any]]]:
    """For each of the lab's targets, what the options that name it give it: keys with values as they stand there."""
    found: dict[str, list[dict[str, Any]]] = {}

    def walk(node: Any) -> None:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(value)
        if isinstance(node, dict) and str(node.get("_target_")).startswith("cv_lab."):
            found.setdefault(node["_target_"], []).append(node)

    for path in OPTIONS:
        group, option = path.parent.name, path.stem
        if group not in ("experiment", "debug"):
            walk(OmegaConf.to_container(composed(group, option))[group])
    return found


def python_defaults(target: Any) -> dict[tuple[Any, str], Any]:
    """Default values of a function's arguments, by function and name; for a class those of its and its bases' too."""
    bases = inspect.getmro(target) if inspect.isclass(target) else (target,)
    owners = [base for base in bases if base.__module__.startswith("cv_lab")]
    functions = {owner: vars(owner).get("__init__") if inspect.isclass(owner) else owner for owner in owners}
    parameters = {owner: inspect.signature(f).parameters for owner, f in functions.items() if f is not None}
    return {(owner, name): p.default for owner, some in parameters.items() for name, p in some.items()}


def test_defaults_in_python_are_those_of_the_configs() -> None:
    """Where every option gives a value, a default in Python is never used, and must not be yet another one."""
    given: dict[tuple[Any, str], list[Any]] = {}
    defaults: dict[tuple[Any, str], Any] = {}
    for name, options in given_by_options().items():
        own = python_defaults(get_object(name))
        defaults |= own
        for (owner, key), default in own.items():
            given.setdefault((owner, key), []).extend(option.get(key, default) for option in options)
    different = []
    for (owner, key), values in given.items():
        default = defaults[owner, key]
        default = list(default) if isinstance(default, tuple) else default
        # Knobs and folders come by interpolation; a dict cannot be a default.
        fixed = [value for value in values if not isinstance(value, dict) and not str(value).startswith("${")]
        if default is not inspect.Parameter.empty and fixed and default not in map(_as_list, fixed):
            different.append(f"{owner.__qualname__}: {key} is {default} in Python, {fixed} in the configs")
    assert not different, "\n".join(different)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

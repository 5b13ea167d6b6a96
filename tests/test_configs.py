"""Every config file composes, and opens with the command that runs it."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from cv_lab.config import LONGEST_NAME, register_config, trial_name
from cv_lab.training.class_weights import with_class_weights
from cv_lab.trial.build import plain
from tests.conftest import ROOT

CONF = ROOT / "conf"
FILES = [path for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "hydra"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_composes_and_instantiates(path: Path) -> None:
    register_config()
    group, option = path.parent.name, path.stem
    with initialize_config_dir(str(CONF), version_base="1.3"):
        choice = f"[default,{option}]" if group == "callbacks" and option != "default" else option
        choice = "[default]" if choice == "default" else choice
        config = compose("train", [f"{group}={choice}", "trial_dir=/tmp/never-written", "study=s"])
    for key in ("data", "model", "optimizer", "scheduler", "augmentation", "callbacks", "pictures"):
        instantiate(config[key])
    loss = plain(config.loss)
    instantiate(loss and with_class_weights(loss, ("background", "cat"), None))


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "experiment"])
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
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

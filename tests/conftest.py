"""What several tests need."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from omegaconf import DictConfig

from cv_lab.config import CONF, register_config

# Before torch is imported. Threads gain nothing on tiny data, and wait for each other where other work takes a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
DATA_DIR = Path(os.environ.get("CV_LAB_DATA", ROOT / "data"))

# A trial of seconds: few small scenes, one epoch, plain output.
TINY = ("data.train_count=200", "data.test_count=40", "data.image_size=32", "batch_size=32", "epochs=1")
PLAIN = ("logger=none", "pictures=none")  # nothing is drawn


def need(folder: str) -> Path:
    """The data folder, if it holds `folder`; else the test is skipped."""
    if not (DATA_DIR / folder).exists():
        pytest.skip(f"{DATA_DIR / folder} is not there: put the data set there, or name its folder in CV_LAB_DATA")
    return DATA_DIR


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files need not outlive a power failure here. Waiting for the disk takes a third of a tiny trial's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


def composed(*overrides: str) -> DictConfig:
    """The config of a trial with `overrides`, whose folder nobody may use."""
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["trial_dir=/tmp/never-written", "study=s", *overrides])


def train_in(studies: Path, *overrides: str) -> Path:
    """Run ``train.py`` with overrides in this process; returns the folder of its study ``s`` under `studies`."""
    mode_of = Hydra.get_mode

    def mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        # Hydra composes the whole config to look `hydra.mode` up, and then again; only these can set it.
        sets_it = any(override.startswith(("experiment=", "+experiment=", "hydra.mode=")) for override in overrides)
        return mode_of(hydra, config_name, overrides) if sets_it else None

    flags = [override for override in overrides if override.startswith("-")]
    values = [override for override in overrides if not override.startswith("-")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        patch.setattr(Hydra, "get_mode", mode)
        patch.setattr(sys, "argv", ["train.py", *flags, f"studies_dir={studies}", "study=s", *values])
        import train

        train.main()
    return studies / "s"


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Path]:
    """Run ``train.py`` as :func:`train_in` does, with studies under tmp_path."""
    return partial(train_in, tmp_path)

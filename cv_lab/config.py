"""The types of the top-level knobs, and the names of trials. Imports neither torch nor Lightning."""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf

# A wheel holds the configs inside the package; in a checkout they lie beside it.
CONF = next(path for path in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if path.is_dir())


@dataclass(frozen=True)
class Keys:
    """What of a composed config identifies and describes a trial: all that ``study/`` knows of a trial's content.

    Attributes:
        not_identifying: keys that say where or how a trial runs but not what it computes; they, and what lies below
            them, do not name it either.
        groups: config groups whose chosen options trials are compared by.
        knobs: top-level values that trials are compared by.
        in_effect: where the value of a knob that is in effect stands, if it may be overridden there.
        packages: distributions whose versions are recorded.
    """

    not_identifying: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    knobs: tuple[str, ...] = ()
    in_effect: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()

    def is_identifying(self, key: str) -> bool:
        """Whether the config key `key`, such as ``optimizer.momentum``, can change what a trial computes."""
        parts = key.split(".")
        return not any(".".join(parts[:end]) in self.not_identifying for end in range(1, len(parts) + 1))


KEYS = Keys(
    not_identifying=(
        "notes",
        "study",
        "studies_dir",
        "trial_dir",
        "data_dir",
        "data.download",
        "data.verify_checksum",
        "data.resident",
        "cache_dir",
        "experiment",
        "logger",
        "pictures",
        "jobs",
        "trial_timeout",
        "fail_fast",
        "retry_failed",
        "halving",
        "trials",
        "sampler",
        "pruner",
    ),
    groups=("data", "task", "model", "loss", "optimizer", "scheduler", "augmentation"),
    knobs=("lr", "epochs", "batch_size", "weight_decay", "label_smoothing", "precision", "monitor", "seed", "weights"),
    in_effect={"weight_decay": "optimizer.weight_decay"},
    packages=("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "timm"),
)
LONGEST_NAME = 120  # bytes; file systems allow 255, and paths are printed in tables


@dataclass
class TrainConfig:
    """Types of everything at the top level, so that `lr=abc` is refused while the config is composed.

    The values, with their explanations, stand in ``conf/train.yaml``.
    """

    data: Any = MISSING
    task: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = None
    augmentation: Any = None
    trainer: Any = MISSING
    logger: Any = None
    callbacks: Any = None
    pictures: Any = None

    lr: float = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    weight_decay: float = MISSING
    label_smoothing: float = MISSING
    precision: str = MISSING
    monitor: str | None = None
    seed: int = MISSING
    weights: str = MISSING
    cache: bool = MISSING

    study: str = MISSING
    jobs: int = MISSING
    trial_timeout: float | None = None
    fail_fast: bool = MISSING
    retry_failed: bool = MISSING
    halving: int | None = None
    trials: int = MISSING
    sampler: str = MISSING
    pruner: str | None = None

    studies_dir: str = MISSING
    trial_dir: str = MISSING
    data_dir: str = MISSING
    cache_dir: str = MISSING

    notes: dict[str, Any] = field(default_factory=dict)


def split_override(override: str) -> tuple[str, str]:
    """Key and value of an override, for example of ``+model.width=8``; one that removes a key may have no value."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def defer_overrides(arguments: Sequence[str]) -> list[str]:
    """Let keys of a swept group be overridden, as in ``-m optimizer=sgd,rmsprop optimizer.momentum=0.9``.

    Hydra composes a config with the group's default option first, which may have no such key. It leaves out what is
    swept, so the override is made a sweep of one value.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(arguments))
    except HydraException:  # Hydra itself says what is wrong
        return list(arguments)
    swept = {override.key_or_group for override in parsed if override.is_sweep_override()}

    def deferred(argument: str, override: Override) -> str:
        group, _, key = override.key_or_group.partition(".")
        if group not in swept or not key or override.is_sweep_override() or override.is_delete():
            return argument
        name, _, value = argument.partition("=")
        return f"{name}=choice({value})"

    return [deferred(argument, override) for argument, override in zip(arguments, parsed, strict=True)]


def trial_name(overrides: Sequence[str]) -> str:
    """Name a trial's folder after its overrides, for example ``lr=0.01,optimizer=adam``.

    Paths are cut to their last part, characters that are awkward in file names become ``-``, and an overlong
    name ends in a hash of the whole.
    """
    values = dict(split_override(override) for override in overrides if "=" in override)  # the last one counts
    parts = [f"{key}={PurePath(value).name}" for key, value in sorted(values.items()) if KEYS.is_identifying(key)]
    name = re.sub(r"[^\w.,=+@-]", "-", ",".join(parts)) or "default"
    if len(name.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore") + "-" + digest
    return name


def kept_in(cache: bool, folder: str) -> str | None:
    """The folder in which a part keeps what it computes but once; None with ``cache=off``."""
    return folder if cache else None


def plain(value: Any) -> Any:
    """Return a part of a composed config as plain Python values, without interpolations."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def register_config() -> None:
    """Make the schema and the resolvers known to Hydra, and modules in the current folder importable.

    Must run before Hydra composes a config.
    """
    # For `_target_: mine.MyNetwork`. Last, so that a user's file named like an installed package does not hide it.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    # Hydra 1.3 copies its store of configs, a singleton, deeply for every group that --help lists: 1.1 s in all.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    ConfigStore.instance().store(name="schema", node=TrainConfig)
    OmegaConf.register_new_resolver("trial_name", trial_name, replace=True)
    OmegaConf.register_new_resolver("kept_in", kept_in, replace=True)

"""What a trial writes of itself: its identity, its status, how it ended. Imports neither torch nor Lightning."""

import copy
import hashlib
import json
import os
import platform
import socket
import subprocess
import traceback
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cv_lab.config import NOT_IDENTIFYING
from cv_lab.files import read_json, write_json, write_yaml

SCHEMA = 1  # of trial.json and result.json; raised when a field changes its meaning
GROUPS = ("data", "task", "model", "loss", "optimizer", "scheduler", "augmentation")
KNOBS = ("lr", "epochs", "batch_size", "weight_decay", "label_smoothing", "precision", "seed", "weights")
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "timm")


class OccupiedError(ValueError):
    """The folder belongs to a trial of another config."""


class TrialRecord:
    """``trial.json`` of one trial, rewritten at each change of its status.

    Args:
        config: the composed config, with `trial_dir`.
    """

    def __init__(self, config: DictConfig) -> None:
        self.folder = Path(config.trial_dir)
        self.path = self.folder / "trial.json"
        self.identified = identifying(config)
        hydra = HydraConfig.get()
        self.fields: dict[str, Any] = {
            "schema": SCHEMA,
            "identity": _digest(self.identified),
            "status": "running",
            "start": _now(),
            "end": None,
            "study": config.study,
            "name": self.folder.name,
            "overrides": list(hydra.overrides.task),
            "parameters": parameters(config, dict(hydra.runtime.choices), list(hydra.overrides.task)),
            "seed": config.seed,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in PACKAGES},
            **_git(),
            "error": None,
        }

    def open(self, config: DictConfig) -> None:
        """Take possession of the folder.

        Raises:
            OccupiedError: if a trial of another config lies there; the message shows the difference.
        """
        if self.path.exists():
            earlier = read_json(self.path)
            if earlier["identity"] != self.fields["identity"]:
                other = OmegaConf.to_container(OmegaConf.load(self.folder / ".hydra" / "identity.yaml"))
                raise OccupiedError(
                    f"{self.folder} holds a trial of another config. {difference(other, self.identified)}\n"
                    "Name another study (study=NAME), or remove that folder."
                )
        write_yaml(self.folder / ".hydra" / "config.yaml", config)
        write_yaml(self.folder / ".hydra" / "overrides.yaml", self.fields["overrides"])
        write_yaml(self.folder / ".hydra" / "identity.yaml", self.identified)
        self.update()

    def update(self, **fields: Any) -> None:
        """Change fields and write the file."""
        self.fields.update(fields)
        write_json(self.path, self.fields)

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End as "completed", "failed" or "interrupted"."""
        told = None
        if error is not None:
            told = {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error)),
            }
        self.update(status=status, end=_now(), error=told)


def identifying(config: DictConfig) -> dict[str, Any]:
    """The resolved config without what does not change a trial's result, such as folders."""
    config = copy.deepcopy(config)
    OmegaConf.set_readonly(config, False)
    for key in NOT_IDENTIFYING & set(config):
        # Emptied before the rest is resolved, since paths are built from these by interpolation.
        config[key] = ""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in NOT_IDENTIFYING}


def parameters(config: DictConfig, choices: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """What trials are compared by: the chosen group options, the top-level knobs, and every other value overridden."""
    chosen = {group: choices[group] for group in GROUPS if choices.get(group) is not None}
    knobs = {name: config[name] for name in KNOBS}
    others: dict[str, Any] = {}
    for override in overrides:
        key, _, text = override.lstrip("+~").partition("=")
        if key not in (*chosen, *knobs, *NOT_IDENTIFYING) and not key.startswith("hydra"):
            value = OmegaConf.select(config, key)
            others[key] = value if isinstance(value, int | float | str) else text
    return chosen | knobs | others


def difference(left: Any, right: Any) -> str:
    """The leaves in which two nested configs differ, as ``key: left -> right``."""
    a, b = _leaves(left), _leaves(right)
    absent = "(absent)"
    lines = [
        f"{key}: {a.get(key, absent)} -> {b.get(key, absent)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, absent) != b.get(key, absent)
    ]
    return "They differ in " + "; ".join(lines)


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _leaves(item, f"{prefix}.{key}".strip(".")).items()}
    return {prefix: value}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _git() -> dict[str, Any]:
    """Commit of the code and whether it was changed since; both null outside a checkout."""
    here = Path(__file__).parent

    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return answer.stdout.strip()

    status = ask("status", "--porcelain")
    return {"git_commit": ask("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}

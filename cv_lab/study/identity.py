"""What identifies a trial: its resolved config, as nested values, as flat leaves and as a hash."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cv_lab.config import Keys, split_override

ABSENT = "(absent)"


def identifying(config: DictConfig, not_identifying: Collection[str]) -> dict[str, Any]:
    """Resolve `config`, without the keys that do not change a trial's result, such as folders.

    The seed is in it once, at the top: what other values take from it is empty, so that trials which differ in their
    seed alone differ nowhere else.
    """
    emptied = OmegaConf.create(OmegaConf.to_container(config))
    for key in (*not_identifying, "seed"):
        # Emptied before the rest is resolved, since paths are built from these by interpolation.
        if OmegaConf.select(emptied, key, throw_on_missing=False) is not None:
            OmegaConf.update(emptied, key, "")
    plain = OmegaConf.to_container(emptied, resolve=True)
    assert isinstance(plain, dict)
    identified = {str(key): value for key, value in plain.items() if key not in not_identifying}
    return identified | {"seed": config.seed}


def digest(value: Any) -> str:
    """Hash nested plain values; dictionaries of another order have the same hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested config by their dotted keys; a list or an empty dictionary is a leaf."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{prefix}.{key}".strip(".")).items()}
    return {prefix: value}


def difference(left: dict[str, Any], right: dict[str, Any]) -> str:
    """The entries in which two flat dictionaries differ, as ``key: left -> right``."""
    keys = [key for key in sorted(left.keys() | right.keys()) if left.get(key, ABSENT) != right.get(key, ABSENT)]
    return "; ".join(f"{key}: {left.get(key, ABSENT)} -> {right.get(key, ABSENT)}" for key in keys)


def parameters(config: DictConfig, keys: Keys, choices: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """What trials are compared by: the chosen group options, the knobs, and every other value overridden."""
    chosen = {group: choices[group] for group in keys.groups if choices.get(group) is not None}
    knobs = {name: OmegaConf.select(config, keys.in_effect.get(name, name)) for name in keys.knobs}
    others: dict[str, Any] = {}
    for override in overrides:
        key, text = split_override(override)
        if key not in (*chosen, *knobs) and keys.is_identifying(key) and not key.startswith("hydra"):
            value = OmegaConf.select(config, key)
            others[key] = value if isinstance(value, int | float | str) else text
    return chosen | knobs | others

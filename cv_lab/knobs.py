"""Refuse overrides that would have no effect. Imports neither torch nor Lightning.

Hydra composes ``+learning_rate=0.1`` without complaint although nothing reads that key, and ``optimizer.lr=0.1``
although the trial is recorded with ``lr``. :mod:`cv_lab.trial.arguments` compares the keys of components with the
arguments of what they instantiate.
"""

import re
import sys
from argparse import Namespace
from dataclasses import fields
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cv_lab.config import KEYS, TrainConfig, split_override

TOP_LEVEL = tuple(field.name for field in fields(TrainConfig))
OVERLAYS = ("experiment", "debug")  # groups whose options set keys of other groups
# Knobs that the lab does not read itself: the config of a component must pass them on, usually this group's.
PASSED_ON = {"lr": "optimizer", "weight_decay": "optimizer", "batch_size": "data", "label_smoothing": "loss"}
# Keys that have no effect while another key has a certain value.
IDLE = (
    ("data.val_fraction", "data.validation", "test"),
    ("task.lr_decay", "task.trained", "head"),
    ("task.unfreeze_every", "task.trained", "head"),
    ("task.freeze_statistics", "task.trained", "head"),
    ("task.dropout_below", "task.trained", "all"),
    ("task.encoder_lr_ratio", "task.freeze_encoder", True),
    ("task.loss_weights.mask", "model.masks", False),
    ("model.mask_layers", "model.masks", False),
    ("model.mask_size", "model.masks", False),
)
_INTERPOLATION = re.compile(r"\$\{(\w+)\}")
_ABSENT = object()


def check_names(options: Namespace, conf: Path) -> None:
    """End the program, with a suggestion, if its command line gives a top-level key that does not exist.

    Hydra refuses such a key, too, but advises to append it with ``+``.

    Args:
        options: of the command line, as Hydra parses it.
        conf: the folder of the lab's config groups.

    Raises:
        SystemExit: with the message.
    """
    if options.config_name:  # a config of the user's own may have keys and groups of its own
        return
    folders = [conf, *([Path(options.config_dir)] if options.config_dir else [])]
    for override in options.overrides:
        name = re.split(r"[./@]", split_override(override)[0])[0]
        known = name in (*TOP_LEVEL, *OVERLAYS, "hydra") or any((folder / name).is_dir() for folder in folders)
        if not known and override[0] not in "+~":  # what is appended is checked when it is composed
            sys.exit(f"error: {_unknown(name, override)}")


def check_config(config: DictConfig, hydra: Any) -> None:
    """Refuse a composed config in which a key has no effect. Must be called while Hydra runs.

    Args:
        config: of a trial.
        hydra: Hydra's own part of the same config.

    Raises:
        ValueError: if a top-level key is not known, a key replaces the value that a knob passes on to it, a knob is
            passed on to no component, or a key has no effect beside another one. The message names all of them.
    """
    problems = [_unknown(key, f"{key}={config[key]}") for key in map(str, config) if key not in (*TOP_LEVEL, "hydra")]
    problems += [*_replaced(config, hydra), *_unread(config, hydra), *_idle(config, hydra)]
    if problems:
        raise ValueError("\n".join(problems))


def similar(name: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The name in `known` that was probably meant by `name`; None if none is similar."""
    name = name.lower()
    short = [key for key in known if key == _initials(name) or _initials(key) == name]
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    part = [key for key in known if len(key) > 2 and (key in name or (len(name) > 2 and key.startswith(name)))]
    return next(iter([*short, *close, *part]), None)


def _initials(name: str) -> str:
    words = [word for word in name.split("_") if word]
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def _unknown(name: str, override: str) -> str:
    meant = similar(name, TOP_LEVEL)
    advice = f"did you mean {meant}?" if meant else f"the top-level keys are {', '.join(TOP_LEVEL)}."
    return (
        f"{override.lstrip('+')}: there is no key {name}; {advice} Keys of your own go into notes, such as "
        f"+notes.{name}=..."
    )


def _replaced(config: DictConfig, hydra: DictConfig) -> list[str]:
    """Keys whose value a knob passes on by interpolation, and which another value has replaced.

    The trial would be recorded, named in tables and compared with the knob's value, which it did not use.
    """
    if not _may_replace(hydra):
        return []
    own, usual = _raw(config), _raw(_reference(hydra))
    problems = []
    for path, knob in _passed_on(usual):
        # What the trainer may be given is checked where the trainer is made, with more to say.
        if not KEYS.is_identifying(knob) or path.startswith("trainer."):
            continue
        value, parent = _select(own, path), path.rpartition(".")[0]
        if value == f"${{{knob}}}" or _target(own, parent) != _target(usual, parent):
            continue
        unused = f"{knob}={config[knob]} would be recorded, but not be used"
        if value is _ABSENT:
            problems.append(f"~{path}: {unused}: leave {path} as it is")
        elif isinstance(value, dict) or OmegaConf.is_config(config[knob]):
            problems.append(f"{path}: {knob} would be recorded, but not be used: override {knob} instead")
        else:
            problems.append(f"{path}={value}: {unused}: give {knob}={value}")
    return problems


def _unread(config: DictConfig, hydra: DictConfig) -> list[str]:
    """Knobs that no component reads, although they have another value than usual or than the component's own."""
    read = {knob for _, knob in _passed_on(_raw(config))}
    problems = []
    for knob, group in PASSED_ON.items():
        if knob in read:
            continue
        choice, usual = f"{group}={hydra.runtime.choices.get(group)}", _reference(hydra)
        own = _select(_raw(usual), f"{group}.{knob}")
        if config[knob] != usual[knob]:
            problems.append(
                f"{choice} takes no {knob}: leave {knob}={config[knob]} out, or choose another {group}, one whose "
                f"config passes it on (as {knob}: ${{{knob}}})"
            )
        elif own not in (_ABSENT, f"${{{knob}}}", config[knob]):
            problems.append(
                f"{choice} has {group}.{knob}={own} in its config, but {knob}={config[knob]} would be recorded: write "
                f"{knob}: ${{{knob}}} there, and give {knob}={own}"
            )
    return problems


def _idle(config: DictConfig, hydra: DictConfig) -> list[str]:
    """Keys on the command line that have no effect beside another one."""
    given = {split_override(override)[0] for override in hydra.overrides.task}
    return [
        f"{key}={OmegaConf.select(config, key)} has no effect with {other}={value}: leave one of the two out"
        for key, other, value in IDLE
        if key in given
        and OmegaConf.select(config, other) == value
        and OmegaConf.select(config, key) != OmegaConf.select(_reference(hydra), key)
    ]


def _may_replace(hydra: DictConfig) -> bool:
    """Whether an override or an overlay could have replaced an interpolation of a group's config."""
    below = any("." in split_override(override)[0] or "{" in override for override in hydra.overrides.task)
    return below or any(hydra.runtime.choices.get(overlay) for overlay in OVERLAYS)


def _raw(config: DictConfig) -> dict[str, Any]:
    """`config` as plain values, interpolations unresolved."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _passed_on(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Paths below the top level whose value is an interpolation of one top-level knob, with the knob."""
    found = []

    def walk(node: Any, path: str) -> None:
        for key, value in _items(node):
            walk(value, f"{path}.{key}")
        if isinstance(node, str) and (match := _INTERPOLATION.fullmatch(node)) and match[1] in TOP_LEVEL:
            found.append((path, match[1]))

    for key, component in raw.items():
        for name, value in _items(component):
            walk(value, f"{key}.{name}")
    return found


def _items(node: Any) -> list[tuple[str, Any]]:
    """Keys and values of a dict or list; none for other values."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [(str(key), value) for key, value in pairs]


def _reference(hydra: DictConfig) -> DictConfig:
    """The trial's config with the same options of all groups, but without other overrides and without overlays."""
    loader = GlobalHydra.instance().config_loader()
    kept = [override for override in hydra.overrides.hydra if override.startswith("hydra.searchpath")]
    for override in hydra.overrides.task:
        key, value = split_override(override)
        group = key.partition("@")[0]
        # Asking Hydra for the options of a group is slow, and a deleted group alone is not among the choices.
        is_group = group in hydra.runtime.choices or (override[0] == "~" and loader.get_group_options(group))
        if group not in OVERLAYS and not value.startswith("{") and is_group:
            kept.append(override)
    given = {split_override(override)[0] for override in kept}
    chosen = {group: option for group, option in hydra.runtime.choices.items() if group in TOP_LEVEL and option}
    kept += [f"{group}={option}" for group, option in chosen.items() if group not in given]
    return _compose(hydra.job.config_name, tuple(sorted(kept)))


@lru_cache(maxsize=64)  # of a study's trials most differ in other things; composing takes tens of milliseconds
def _compose(name: str, overrides: tuple[str, ...]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration(name, list(overrides), run_mode=RunMode.RUN)


def _select(raw: dict[str, Any], path: str) -> Any:
    """The value at `path`; `_ABSENT` if there is none."""
    node: Any = raw
    for key in path.split("."):
        node = dict(_items(node)).get(key, _ABSENT)
    return node


def _target(raw: dict[str, Any], path: str) -> Any:
    """What the component at `path` instantiates: None if it is a plain dict, `_ABSENT` if there is no dict."""
    node = _select(raw, path)
    return node.get("_target_") if isinstance(node, dict) else _ABSENT

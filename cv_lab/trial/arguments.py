"""Refuse keys and values of a config that do not fit the arguments of what its components instantiate.

Hydra finds such a key only when it instantiates the component, and a class may never notice a wrong value: the string
"flase" counts as true. This module imports what each ``_target_`` names, and so whatever that imports.
"""

import ast
import inspect
import pydoc
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cv_lab.config import TrainConfig
from cv_lab.knobs import TOP_LEVEL, similar
from cv_lab.training.class_weights import with_class_weights

# Keys that Hydra reads, and that it does not pass on.
HYDRAS_OWN = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}
# Keys that the lab reads itself and does not pass on to the component, with their types.
LABS_OWN: dict[str, dict[str, Any]] = {"optimizer": {"decay_norms": bool}, "trainer": {"compile": bool}}
# Groups that are dictionaries of components; the other groups are one component each.
SEVERAL = ("callbacks", "logger")
GROUPS = [field.name for field in fields(TrainConfig) if field.type is Any]
_KINDS = {bool: "true or false", int: "a number", float: "a number", NoneType: "null"}


def check_arguments(config: Mapping[str, Any]) -> None:
    """Refuse a config of whose components some cannot be found, or do not take what they are given.

    Args:
        config: a composed config as plain values, without interpolations.

    Raises:
        ValueError: with a line for each component without ``_target_``, each ``_target_`` that cannot be imported, each
            key that is no argument of it, and each value of another type than its argument's annotation: true or false
            for a bool, a number for an int or float, one of the choices for a Literal.
    """
    problems: list[str] = []
    for group in GROUPS:
        value = _without_other_groups(config, group)
        if group == "loss" and isinstance(value, Mapping):
            value = with_class_weights(value, (), None)  # as trials do, before they instantiate it
        components = value if group in SEVERAL and isinstance(value, Mapping) else {"": value}
        for name, component in components.items():
            path = f"{group}.{name}" if name else group
            if component is None:
                continue
            if not isinstance(component, Mapping) or "_target_" not in component:
                problems.append(
                    f"{path}={component} names nothing to instantiate: choose an option of the group {group}, or give "
                    f"{path}._target_"
                )
                continue
            problems += _problems(component, path, LABS_OWN.get(group, {}))
    if problems:
        raise ValueError("\n".join(problems))


@cache  # the trials of a study have most components in common
def arguments_of(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """The arguments that can be given to `target` by name.

    Returns:
        Their annotations by name, and whether it takes others as well, by ``**options``. A class whose constructor
        hands these to that of its base, by ``super().__init__(**options)``, takes those of its base.
    """
    if not inspect.isclass(target):
        return _arguments_of_function(target)
    found: dict[str, Any] = {}
    for kind in target.__mro__:
        if kind is object:
            return (found, False) if found else _arguments_of_function(target)
        if "__init__" not in vars(kind):
            continue
        own, further = _arguments_of_function(vars(kind)["__init__"])
        found = {**own, **found}
        if not further or not _hands_on(kind):
            return found, further
    return found, True


def _without_other_groups(config: Mapping[str, Any], group: str) -> Any:
    """The group's config without what it takes from another group, as the data take the augmentation."""
    value = config.get(group)
    if not isinstance(value, Mapping) or group in SEVERAL:
        return value
    return {key: part for key, part in value.items() if not (isinstance(part, Mapping) and part == config.get(key))}


def _problems(node: Any, path: str, labs_own: dict[str, Any]) -> list[str]:
    """What is wrong with a component and with those within it."""
    found = []
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found += _problems(value, f"{path}.{key}", {})
    if not isinstance(node, Mapping) or "_target_" not in node:
        return found
    try:
        target = pydoc.locate(node["_target_"])
    except pydoc.ErrorDuringImport as error:
        return [f"{path}._target_={node['_target_']} cannot be imported: {error.value}"]
    if not callable(target):
        return [
            f"{path}._target_={node['_target_']} was not found among the installed packages, in PYTHONPATH and in the "
            "current folder"
        ]
    arguments, further = arguments_of(target)
    known = {**arguments, **labs_own}
    for key, value in node.items():
        if key in HYDRAS_OWN:
            continue
        if key not in known and not further:
            meant = similar(key, tuple(known))
            if key in TOP_LEVEL:
                advice = f"give {key}={value}"
            else:
                advice = f"did you mean {path}.{meant}?" if meant else f"it takes {', '.join(known) or 'no arguments'}"
            found.append(f"{path}.{key}={value}: {node['_target_']} takes no {key}; {advice}")
        elif (wanted := _wanted(value, known.get(key, Any))) is not None:
            found.append(f"{path}.{key}={value}: give {wanted}")
    return found


def _arguments_of_function(function: Any) -> tuple[dict[str, Any], bool]:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of some functions that are written in C
        return {}, True
    try:
        hints = get_type_hints(function)
    except Exception:  # annotations may name what is imported for type checkers alone
        hints = {}
    named = {
        name: hints.get(name, bool if isinstance(parameter.default, bool) else Any)
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != "self"
    }
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _hands_on(kind: type) -> bool:
    """Whether the constructor of `kind` calls ``super().__init__(..., **options)`` with all its further arguments."""
    constructor = vars(kind)["__init__"]
    if not inspect.isfunction(constructor):  # it is written in C
        return False
    source, rest = inspect.getsource(constructor), inspect.getfullargspec(constructor).varkw
    for call in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
            return any(word.arg is None and ast.unparse(word.value) == rest for word in call.keywords)
    return False


def _wanted(value: Any, annotation: Any) -> str | None:
    """What should be given instead of `value` for an argument of that annotation; None if it may be given."""
    choices, kinds = _members(annotation)
    if not kinds <= _KINDS.keys() or not (kinds or choices):  # other types take what they take
        return None
    if isinstance(value, bool):
        fits = bool in kinds or value in [choice for choice in choices if isinstance(choice, bool)]
    elif isinstance(value, int | float):
        fits = bool(kinds & {int, float}) or value in choices
    else:
        fits = value in choices or (value is None and NoneType in kinds)
    if fits:
        return None
    return " or ".join(dict.fromkeys([_KINDS[kind] for kind in _KINDS if kind in kinds] + [str(c) for c in choices]))


def _members(annotation: Any) -> tuple[list[Any], set[Any]]:
    """The choices of the Literals in a union, and its other types."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation)), set()
    if get_origin(annotation) not in (Union, UnionType):
        return [], {annotation}
    choices: list[Any] = []
    kinds: set[Any] = set()
    for member in get_args(annotation):
        some, others = _members(member)
        choices, kinds = choices + some, kinds | others
    return choices, kinds

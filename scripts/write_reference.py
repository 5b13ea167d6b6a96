"""Write the reference of all config keys, with types from the code and meanings from the comments in conf/.

python scripts/write_reference.py   # writes docs/reference.md
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from hydra.utils import get_object

sys.path.insert(0, str(Path(__file__).parents[1]))

from cv_lab.config import TrainConfig
from cv_lab.trial.arguments import LABS_OWN, arguments_of

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "reference.md"
GROUPS = (
    "task",
    "data",
    "augmentation",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "pictures",
)
HEAD = """# Reference of the configuration

<!-- Written by `python scripts/write_reference.py` from the comments in `conf/`: change those, and run it again. -->

Every key of `conf/`, with its type, its default, and what it means. A default in the form `${lr}` is the value of that
top-level knob. Keys of [experiments](published_studies.md) and of `debug=` are those of other groups; Hydra's own are
shown by `python train.py --cfg hydra`. [Configuration](configuration.md) explains the knobs in context.
"""
_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", NoneType: "null", dict: "mapping"}
_PLURALS = {"integer": "integers", "number": "numbers", "text": "texts", "list": "lists"}
_COMPONENT = "component"  # anything with a `_target_` of its own
_KNOBS = get_type_hints(TrainConfig)


@dataclass
class Key:
    """A key of a config file: its path in the composed config, its value, and the comment beside it."""

    path: str
    value: str
    comment: str
    kind: Any  # the type of the value as it stands in the file


@dataclass
class Option:
    """A file of a config group."""

    group: str
    name: str
    head: str = ""  # the comment at its top, without the commands
    commands: list[str] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)  # options of the same group that it extends
    targets: dict[str, str] = field(default_factory=dict)  # path of each component: what it instantiates
    keys: list[Key] = field(default_factory=list)


@cache
def options() -> dict[tuple[str, str], Option]:
    """All options by group and name; the top level has the group ""."""
    files = [("", CONF / "train.yaml"), *((group, path) for group in GROUPS for path in (CONF / group).glob("*.yaml"))]
    return {(group, path.stem): _read(group, path) for group, path in sorted(files)}


def meaning(option: Option, key: Key) -> str:
    """The comment of a key, or of the same key in the options that this one extends, or where it stands first."""
    home = key.path.rpartition(".")[0].partition(".")[0]  # the group that the key belongs to, "" at the top level
    others = () if home == option.group else (other for (group, _), other in options().items() if group == home)
    keys = (same for each in (*_lineage(option), *others) for same in each.keys if same.path == key.path)
    return next((comment for comment in (key.comment, *(same.comment for same in keys)) if comment), "")


def type_of(option: Option, key: Key) -> str:
    """The type of a key in words, from the annotation of the argument that it becomes."""
    parent, _, name = key.path.rpartition(".")
    if not parent:
        return _in_words(_KNOBS[name], key)
    for each in _lineage(option):
        if parent in each.targets:
            annotations, _ = arguments_of(get_object(each.targets[parent]))
            return _in_words({**annotations, **LABS_OWN.get(parent, {})}.get(name, Any), key)
    return _in_words(Any, key)


def page() -> str:
    """The page as Markdown."""
    lines = [HEAD, "## Knobs", "", *_table(options()["", "train"])]
    for group in GROUPS:
        lines += ["", f"## {group}"]
        for option in (option for option in options().values() if option.group == group):
            lines += ["", *_section(option)]
    return "\n".join([*lines, ""])


def _section(option: Option) -> Iterator[str]:
    shared = option.name.startswith("_")
    yield f"### {'shared: ' if shared else ''}{option.group}={option.name}"
    if option.head:
        yield from ("", option.head)
    if option.commands:
        yield from ("", "```", *option.commands, "```")
    if option.bases:
        names = ", ".join(f"`{name}`" for name in option.bases)
        yield from ("", f"Extends {names}, whose keys it has as well.")
    if option.keys:
        yield from ("", *_table(option))


def _table(option: Option) -> Iterator[str]:
    yield from ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
    for key in option.keys:
        cells = (f"`{key.path}`", type_of(option, key), f"`{key.value}`", meaning(option, key))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _lineage(option: Option) -> Iterator[Option]:
    yield option
    for name in option.bases:
        yield from _lineage(options()[option.group, name])


def _read(group: str, path: Path) -> Option:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    head = _leading_comments(lines)
    option = Option(group, path.stem)
    option.commands = [line for line in head if line.startswith("python train.py")]
    option.head = " ".join(
        line for line in head if line not in option.commands and not line.startswith("@package")
    ).strip()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    prefix = "" if "@package _global_" in head or not group else group
    for name, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if name.value == "defaults":
            option.bases = _extended(yaml.safe_load(text)["defaults"], group)
        else:
            _collect(option, lines, name, value, _joined(prefix, name.value), "")
    return option


def _collect(option: Option, lines: Sequence[str], name: yaml.Node, value: yaml.Node, path: str, above: str) -> None:
    """Add the key `name` with those below it to the option; one without a comment has that of the level above."""
    parent, _, last = path.rpartition(".")
    if last in ("_partial_", "_target_"):
        if last == "_target_":
            option.targets[parent] = value.value
        return
    inner = isinstance(value, yaml.MappingNode) and value.value
    comment = _comment(lines[name.start_mark.line], (name if inner else value).end_mark.column) or above
    if inner:
        for key, below in value.value:
            _collect(option, lines, key, below, f"{path}.{key.value}", comment)
    elif path not in GROUPS:  # `loss: null` chooses no loss
        text = lines[value.start_mark.line][value.start_mark.column : value.end_mark.column]
        option.keys.append(Key(path, text, comment, type(yaml.safe_load(text))))


def _comment(line: str, end: int) -> str:
    return line[end:].partition("#")[2].strip()


def _leading_comments(lines: Sequence[str]) -> list[str]:
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def _extended(defaults: Sequence[Any], group: str) -> list[str]:
    """The options of `group` that an option with these defaults extends."""
    names = [each.partition("@")[0] for each in defaults if isinstance(each, str) and each != "_self_"]
    return [name for name in names if (CONF / group / f"{name}.yaml").exists() and group]


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _in_words(annotation: Any, key: Key) -> str:
    """An annotation in words. Where there is none, the type is that of the knob passed on, or of the value."""
    if annotation is Any:
        knob = key.value.removeprefix("${").removesuffix("}")
        annotation = _KNOBS.get(knob, key.kind) if key.value.startswith("${") else key.kind
    origin, members = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        words = dict.fromkeys(_in_words(member, key) for member in members)
        return " or ".join(word for word in words if word != _COMPONENT) or _COMPONENT
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in members)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = {_in_words(member, key).partition(" ")[0] for member in members if member is not ...}
        return f"list of {' or '.join(sorted(_PLURALS.get(word, word) for word in inner))}"
    return _WORDS.get(annotation, _COMPONENT)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))

"""What the documentation says can be done: commands compose or parse, and links lead somewhere."""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from cv_lab import cli
from cv_lab.config import CONF, register_config
from cv_lab.knobs import check_config
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^ {4}\S.*\n)+(?: {4,}.*\n)*", re.MULTILINE)
_INLINE = re.compile(r"`((?:python train\.py|cv-lab [a-z]+|make [a-z-]+)[^`]*)`")


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page as lists of words, without comments, prompts and what runs them in the background."""
    text = page.read_text(encoding="utf-8")
    blocks = [code for language, code in _FENCED.findall(text) if language in ("", "sh", "bash")]
    rest = _FENCED.sub("", text)
    blocks += [re.sub("^    ", "", block, flags=re.MULTILINE) for block in _INDENTED.findall(rest)]
    blocks += [span.replace("\n", " ") for span in _INLINE.findall(rest)]
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if re.match(r"(python|cv-lab|make)\b", line):
            yield [word for word in shlex.split(line, comments=True) if word not in ("&", "…", "...")]


def on(program: str) -> list[pytest.param]:
    """The arguments of the commands of all pages that begin with `program`, each once."""
    start = program.split()
    found = {
        tuple(words[len(start) :]): page.name
        for page in PAGES
        for words in commands(page)
        if words[: len(start)] == start
    }
    return [pytest.param(words, id=f"{page} {shlex.join(words)}") for words, page in found.items()]


@pytest.fixture(scope="module")
def hydra() -> Iterator[None]:
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


@pytest.mark.parametrize("arguments", [*on("python train.py"), *on("cv-lab train")])
def test_a_command_that_trains_composes(arguments: tuple[str, ...], hydra: None) -> None:
    if "--config-dir" in arguments:
        pytest.skip("of a page whose code test_own_project runs")
    overrides = [word for word in arguments if not word.startswith("-") and word not in ("job", "hydra")]
    if any(word.startswith(("hydra/launcher=", "hydra/sweeper=")) for word in overrides):
        overrides = [word for word in overrides if not re.match(r"\+?hydra[./]", word)]  # engines need not be installed
    first = [_first_value(word) for word in overrides]
    config = compose("train", [*first, "hydra.runtime.output_dir=never-written"], return_hydra_config=True)
    own = config.hydra
    with open_dict(config):
        del config["hydra"]
    assert isinstance(config, DictConfig)
    check_config(config, own)


def _first_value(override: str) -> str:
    """The override itself, or of a sweep the one with its first value."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    if not parsed.is_sweep_override():
        return override
    key = override.partition("=")[0]
    if not parsed.is_discrete_sweep():  # an interval, from which a search draws
        return f"{key}={parsed.value().start}"
    return f"{key}={next(iter(parsed.sweep_string_iterator()))}"


class Parsed(Exception):
    """The arguments were accepted."""


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "train"])
def test_other_commands_take_the_arguments_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(parse: Callable[..., object]) -> Callable[..., None]:
        def stop(self: argparse.ArgumentParser, *arguments: object) -> None:
            parse(self, *arguments)
            raise Parsed

        return stop

    for method in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, method, stopping(getattr(argparse.ArgumentParser, method)))
    monkeypatch.setattr(sys, "argv", ["cv-lab"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    shown = [parameter.values[0] for parameter in on(f"cv-lab {name}")]
    assert shown, f"no page shows cv-lab {name}"
    for arguments in shown:
        if arguments:  # else the command is only named
            with pytest.raises(Parsed):
                cli.main([name, *arguments])


def test_scripts_modules_and_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    missing = []
    for page in PAGES:
        for words in commands(page):
            program, *arguments = words
            if program == "make" and not set(arguments[:1]) <= set(targets):
                missing.append((page.name, words))
            if program == "python" and arguments[0].endswith(".py") and not (ROOT / arguments[0]).exists():
                missing.append((page.name, words))
    assert not missing


def test_links_lead_to_a_page_and_its_heading() -> None:
    broken = []
    for page in PAGES:
        text = _FENCED.sub("", page.read_text(encoding="utf-8"))
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if "://" in link:
                continue
            if not target.exists() or (anchor and anchor not in headings(target)):
                broken.append(f"{page.name}: {link}")
    assert not broken, "\n".join(broken)


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_the_site_lists_every_page() -> None:
    listed = set(re.findall(r"(\w+\.md)", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}, "add it to nav in mkdocs.yml"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 900

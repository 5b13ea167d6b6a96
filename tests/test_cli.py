"""The command ``cv-lab``, here as ``python -m cv_lab``."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from cv_lab import __version__, cli
from tests.conftest import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cv_lab", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_command_and_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['cv-lab', *{arguments!r}]\n"
        "from cv_lab.cli import main; main()\n"
        "assert not {'hydra', 'torch', 'numpy', 'rich'} & set(sys.modules), 'heavy import'"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert all(f"  {command} " in answer.stdout for command in cli.COMMANDS)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out == f"cv-lab {__version__}\n"


@pytest.mark.parametrize("command", ["train", "report", "predict", "export", "download"])
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cv-lab"])
    monkeypatch.setattr(sys, "path", sys.path[:])  # which the command adds to
    with pytest.raises(SystemExit) as exit_info:
        cli.main([command, "--help"])
    assert not exit_info.value.code
    assert ("whitened_cnn" if command == "train" else f"usage: cv-lab {command}") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean train?"),
        (["preditc", "best.ckpt"], "did you mean predict?"),
        (["lr=1e-3"], "did you mean cv-lab train lr=1e-3?"),
        (["-m", "lr=1e-3,1e-2"], "did you mean cv-lab train -m?"),
        (["xyzzy"], "give one of train, report"),
    ],
)
def test_an_unknown_command_is_refused_with_a_suggestion(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_overrides_may_stand_on_both_sides_of_a_flag() -> None:
    answer = run("train", "lr=0.5", "--cfg", "job", "epochs=3", "seed=7")
    assert answer.returncode == 0, answer.stderr
    assert {"lr: 0.5", "epochs: 3", "seed: 7"} <= set(answer.stdout.splitlines())


def test_the_package_alone_imports_nothing_heavy_and_offers_its_functions() -> None:
    code = (
        "import sys, cv_lab\n"
        "assert not {'torch', 'hydra', 'numpy'} & set(sys.modules), 'heavy import'\n"
        "assert callable(cv_lab.read_study)\n"
        "assert 'torch' not in sys.modules, 'reading a study needs no torch'\n"
        "assert callable(cv_lab.load)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_the_package_does_not_offer_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = import_module("cv_lab").laod


def test_download_names_what_it_cannot_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cv-lab"])
    monkeypatch.setattr(sys, "path", sys.path[:])  # which the command adds to
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["download", "cifar10", f"data_dir={tmp_path}", "data.download=false"])
    told = f"{capsys.readouterr().err} {exit_info.value}"
    assert "cifar10: " in told
    assert "data.download=true" in told


def test_download_of_an_unknown_data_set_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cv-lab"])
    monkeypatch.setattr(sys, "path", sys.path[:])  # which the command adds to
    with pytest.raises(SystemExit, match="cifar100"):
        cli.main(["download", "cifar11"])

"""The wheel alone, without the checkout: ``cv-lab`` in an environment of its own, called from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import PLAIN, ROOT, TINY

# A module of the user's own, whose callback tells where its process has the lab from.
MINE = """
import cv_lab
from pytorch_lightning import Callback

class Where(Callback):
    def __init__(self):
        with open("where.txt", "a") as file:
            file.write(cv_lab.__file__ + "\\n")
"""
SOURCES = ("cv_lab", "conf", "hydra_plugins", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel, and sees the packages of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")

    venv.create(folder / "env")
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # The .pth files of this environment, one of which leads to the checkout, are not read there.
    (packages,) = (folder / "env").rglob("site-packages")
    (packages / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    install = ["--python", str(python), "install", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*pip, *install, str(wheel)], check=True)
    return python.parent


def run(environment: Path, folder: Path, *arguments: str) -> str:
    """Call ``cv-lab`` in `folder`, and return what it prints."""
    command = [str(environment / "cv-lab"), *arguments]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    answer = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=500)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.slow
def test_the_wheel_runs_a_study_in_the_current_folder(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    mine = ("callbacks=[default]", "+callbacks.mine._target_=mine.Where", "trainer=cpu")
    printed = run(environment, tmp_path, "train", "lr=1e-2,1e-3", "-m", "study=s", *TINY, *PLAIN, *mine)
    assert "2 trials in studies/s" in printed
    trials = sorted((tmp_path / "studies/s").glob("*/result.json"))
    assert len(trials) == 2
    assert 0 <= json.loads(trials[0].read_text())["metrics"]["test/accuracy"] <= 1
    imported = set((tmp_path / "where.txt").read_text().split())
    assert imported == {str(next(environment.parent.rglob("site-packages")) / "cv_lab/__init__.py")}
    (tmp_path / "studies/s/report.html").unlink()
    assert run(environment, tmp_path, "report", "studies/s").strip() == "studies/s/report.html"
    assert "whitened_cnn" in run(environment, tmp_path, "train", "--cfg", "job")

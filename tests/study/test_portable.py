"""Studies on systems without fork server, file locks and signals of POSIX, as which Linux is disguised here."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.study.test_launcher import SMALL

ELSEWHERE = ROOT / "tests/study/elsewhere"
KILL = ("+callbacks.kill._target_=tests.saboteur.KillOnce", "+callbacks.kill.moment=last,none")


def overrides(tmp_path: Path, study: str) -> list[str]:
    """A study of two trials, one of which is killed in its second epoch unless a file says that it was."""
    kill = (*KILL, f"+callbacks.kill.flag={tmp_path}/{study}")
    return ["-m", *SMALL, f"studies_dir={tmp_path}", f"study={study}", "epochs=2", "jobs=2", *kill]


def run_disguised(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    path = [str(ELSEWHERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "train.py", *overrides(tmp_path, "elsewhere")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def figures(study: Path) -> dict[str, Any]:
    """Epochs and metrics of each trial, by whether it was killed."""
    found = {}
    for path in study.glob("*/result.json"):
        kind = json.loads((path.parent / "trial.json").read_text())["parameters"]["callbacks.kill.moment"]
        with (path.parent / "metrics.csv").open() as file:
            found[kind] = (list(csv.DictReader(file)), json.loads(path.read_text())["metrics"])
    return found


@pytest.mark.slow
def test_a_study_runs_and_resumes_without_posix_and_has_equal_figures(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "here-last").touch()  # here none is killed
    train(*overrides(tmp_path, "here"))
    killed = run_disguised(tmp_path)
    assert killed.returncode == 1, killed.stdout + killed.stderr
    continued = run_disguised(tmp_path)
    assert continued.returncode == 0, continued.stdout + continued.stderr
    assert "continued" in continued.stdout
    assert "Traceback" not in killed.stderr + continued.stderr
    assert (tmp_path / "elsewhere/report.html").exists()
    assert len(figures(tmp_path / "here")) == 2
    assert figures(tmp_path / "elsewhere") == figures(tmp_path / "here")

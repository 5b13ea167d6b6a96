"""The scripts, as a user runs them."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"scripts/{script}", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_download_names_what_it_cannot_get(tmp_path: Path) -> None:
    answer = run("download_data.py", "cifar10", f"data_dir={tmp_path}", "data.download=false")
    assert answer.returncode == 1
    assert "cifar10: " in answer.stderr
    assert "data.download=true" in answer.stderr
    assert "Traceback" not in answer.stderr

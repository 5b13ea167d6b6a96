"""The cheap benchmarks run: one round each, on sizes that say nothing of speed."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

NAMES = re.search(r"^BENCHMARKS = ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES.replace("\\", "").split())
def test_a_benchmark_runs(name: str) -> None:
    command = [sys.executable, f"scripts/benchmarks/{name}.py"]
    environment = os.environ | {"BENCHMARK_TINY": "1", "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "torch" in answer.stdout  # the machine is named
    assert len(answer.stdout.splitlines()) > 1

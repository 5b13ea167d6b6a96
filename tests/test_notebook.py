"""The notebook of the docs runs from its first cell to its last, in an empty folder."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads((ROOT / "docs/notebook.ipynb").read_text())
    assert notebook["nbformat"] == 4
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "clear the outputs before saving"
            exec("".join(cell["source"]), names)
    printed = capfd.readouterr().out
    assert "lr=0.01  completed  best val/accuracy" in printed
    assert len(names["study"].trials) == 2
    assert sum(names["named"].values()) == pytest.approx(1, abs=1e-5)

"""The pages on a project of one's own: their code, in a folder of its own, runs by their command."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCENES = ("data.train_count=120", "data.test_count=40", "data.image_size=32")
SHORT = ("epochs=1", "batch_size=20", "pictures=none", "logger=none", "study=s")
PAGES = {
    "your_own_network": (*SCENES, "lr=1e-3"),
    "your_own_data_set": ("model=small_cnn", "model.width=4"),
    "your_own_loss_and_metric": (*SCENES, "model=small_cnn", "model.width=4"),
    "your_own_task": (*SCENES, "model=small_cnn", "model.width=4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs_by_its_command(page: str, tmp_path: Path) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    for name, code in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    (command,) = re.findall(r"```sh\npython train\.py (.*?)\n```", text, re.DOTALL)
    arguments = [sys.executable, str(ROOT / "train.py"), *shlex.split(command), *SHORT, *PAGES[page]]
    # With the lab alone on PYTHONPATH, the module is found because it lies in the current folder.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("studies/s/*/result.json")]
    assert len(results) == (2 if page == "your_own_network" else 1)  # the command is a study of two
    if page == "your_own_loss_and_metric":
        assert results[0]["monitor"]["name"] == "val/balanced_accuracy"
        assert 0 <= results[0]["metrics"]["test/balanced_accuracy"] <= 1
    if page == "your_own_task":
        assert results[0]["classes"] == ["0", "90", "180", "270"]

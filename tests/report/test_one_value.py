"""A figure of a real study has the same value wherever it is shown."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.files import read_json
from cv_lab.report.latex import escaped

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_figure_has_the_same_value_in_every_place(tmp_path: Path) -> None:
    overrides = ["-m", "lr=1e-2,1e-3", "epochs=1", "data.train_count=100", "data.test_count=60", "data.image_size=32"]
    folders = [f"studies_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}", "study=s"]
    command = [sys.executable, "train.py", *overrides, *folders]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    study = tmp_path / "s"
    with (study / "trials.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    page, markdown, latex = ((study / f"report.{end}").read_text() for end in ("html", "md", "tex"))
    trials = [path.parent for path in study.glob("*/trial.json")]
    assert len(trials) == 2
    for trial in trials:
        metrics = read_json(trial / "result.json")["metrics"]
        events: dict[str, float] = {}
        for path in trial.glob("events.*"):
            log = EventAccumulator(str(path)).Reload()
            events |= {tag: log.Scalars(tag)[-1].value for tag in log.Tags()["scalars"]}
        for name in ("val/accuracy", "test/accuracy"):
            value = metrics[name]
            assert float(rows[trial.name][name]) == value
            assert events[f"best/{name}"] == pytest.approx(value, rel=1e-6)  # TensorBoard keeps float32
            text = f"{100 * value:.2f} %"
            assert text in page
            assert text in printed
            assert text in markdown
            assert escaped(text) in latex

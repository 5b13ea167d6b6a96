"""Trials in processes of their own, and other engines that run them."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cv_lab.study.processes import slots
from cv_lab.study.read import read_study
from tests.conftest import ROOT, TINY

Train = Callable[..., Path]
# A network of a few hundred weights; nothing is drawn.
SMALL = (
    *TINY,
    "model=small_cnn",
    "model._target_=tests.saboteur.DropoutNet",
    "model.width=8",
    "logger=none",
    "pictures=none",
)
TROUBLE = "+callbacks.trouble._target_=tests.saboteur.Trouble"


def records(study: Path) -> dict[str, Any]:
    """What each trial says of itself, by its kind of trouble or its seed."""
    found = [json.loads(path.read_text()) for path in study.glob("*/trial.json")]
    return {str(r["parameters"].get("callbacks.trouble.kind", r["seed"])): r for r in found}


def test_the_others_run_on_when_a_trial_raises_or_is_killed(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("-m", *SMALL, TROUBLE, "+callbacks.trouble.kind=raise,kill,none", "jobs=2")
    with pytest.raises(SystemExit) as exit_info:
        train(*overrides)
    assert exit_info.value.code == 1
    found = records(tmp_path / "s")
    assert {kind: record["status"] for kind, record in found.items()} == {
        "raise": "failed",
        "kill": "failed",
        "none": "completed",
    }
    assert "no such luck" in found["raise"]["error"]["traceback"]
    assert "SIGKILL" in found["kill"]["error"]["message"]
    for kind, told in (("raise", "Traceback"), ("kill", "SIGKILL")):
        (log,) = (tmp_path / "s").glob(f"*kind={kind}*/train.log")
        assert told in log.read_text()
    assert len({record["pid"] for record in found.values()} | {os.getpid()}) == 4
    printed = capsys.readouterr().out
    assert "val/accuracy" in printed
    assert printed.count("failed: ") >= 2

    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(*overrides)
    printed = capsys.readouterr().out
    assert "already completed" in printed
    assert "tried again" in printed


@pytest.mark.slow
def test_a_hanging_trial_is_given_up(train: Train, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *SMALL, TROUBLE, "+callbacks.trouble.kind=hang", "trial_timeout=8")
    assert exit_info.value.code == 1
    record = records(tmp_path / "s")["hang"]
    assert record["status"] == "failed"
    assert record["error"]["message"] == "not done after trial_timeout=8 seconds"
    (log,) = tmp_path.glob("s/*/train.log")
    assert "most recent call first" in log.read_text()  # where it hung


def test_an_interrupted_run_says_so(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as exit_info:
        train(*SMALL, TROUBLE, "+callbacks.trouble.kind=interrupt")
    signal.signal(signal.SIGINT, before)  # Lightning ignores Ctrl-C from the first on
    assert exit_info.value.code == 130
    assert records(tmp_path / "s")["interrupt"]["status"] == "interrupted"
    assert "the last checkpoint is kept" in capsys.readouterr().out


def test_fail_fast_stops_early(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *SMALL, TROUBLE, "+callbacks.trouble.kind=raise,none", "fail_fast=true")
    assert exit_info.value.code == 1
    assert list(records(tmp_path / "s")) == ["raise"]
    assert "1 trial not run" in capsys.readouterr().out


def test_a_trial_that_occurs_twice_is_run_once(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    study = train("-m", *SMALL, "seed=1,1")
    assert len(list(study.glob("*/result.json"))) == 1
    assert "1 trial in " in capsys.readouterr().out
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert {json.loads(path.read_text())["git_commit"] for path in study.glob("*/trial.json")} == {commit or None}


@pytest.mark.parametrize("bad", ["jobs=0", "trial_timeout=-1"])
def test_bad_knobs_are_refused(train: Train, tmp_path: Path, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *SMALL, "seed=1,2", bad)
    assert exit_info.value.code == 1
    assert bad in capsys.readouterr().out
    assert not list(tmp_path.glob("s/*/trial.json"))


def test_an_occupied_folder_is_refused_before_anything_is_run(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbered = "hydra.sweep.subdir=trial-${hydra:job.num}"
    train("-m", *SMALL, numbered, "seed=1")
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *SMALL, numbered, "seed=2,3")
    assert exit_info.value.code == 1
    assert "seed: 1 -> 2" in capsys.readouterr().out
    assert [path.parent.name for path in tmp_path.glob("s/*/trial.json")] == ["trial-0"]


def test_several_devices_in_a_study_are_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train("-m", *SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "seed=1")
    assert "jobs=N" in records(tmp_path / "s")["1"]["error"]["message"]


def test_slots_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [(slot.jobs, slot.gpu) for slot in slots(3)] == [(3, "4"), (3, "6"), (3, "4")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert [(slot.jobs, slot.gpu) for slot in slots(1)] == [(1, None)]


def command(tmp_path: Path, *overrides: str) -> list[str]:
    flags = [override for override in overrides if override.startswith("-")]
    values = [override for override in overrides if not override.startswith("-")]
    return [sys.executable, "train.py", *flags, *SMALL, f"studies_dir={tmp_path}", "study=s", *values]


def wait_for_checkpoint(study: Path, process: subprocess.Popen[str]) -> None:
    """Wait until all trials of the study have one, and run."""
    for _ in range(3000):
        assert process.poll() is None, process.communicate()
        if len(list(study.glob("*/checkpoints/last.ckpt"))) == 2:
            return
        time.sleep(0.1)
    raise AssertionError("no checkpoint after five minutes")


@pytest.mark.slow
def test_a_killed_and_then_interrupted_study_is_completed_by_the_same_command(train: Train, tmp_path: Path) -> None:
    overrides = ("-m", "seed=1,2", "epochs=4", "jobs=2", "+callbacks.slow._target_=tests.saboteur.Slow")
    arguments = command(tmp_path, *overrides, "+callbacks.slow.seconds=0.1")
    # A shell lets what it starts in the background ignore Ctrl-C, and these tests' children would inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT, "preexec_fn": heed}
    process = subprocess.Popen(arguments, **streams)  # type: ignore[call-overload]
    wait_for_checkpoint(tmp_path / "s", process)
    process.kill()
    process.wait()
    for _ in range(100):  # its trials die with it
        if all(trial.status != "running" for trial in read_study(tmp_path / "s").trials):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("a trial runs on without its launcher")
    checkpoints = {path: path.stat().st_mtime_ns for path in tmp_path.glob("s/*/checkpoints/last.ckpt")}

    process = subprocess.Popen(arguments, **streams)  # type: ignore[call-overload]
    for _ in range(3000):
        if all(r["attempts"] and r["status"] == "running" for r in records(tmp_path / "s").values()):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert {record["status"] for record in records(tmp_path / "s").values()} == {"interrupted"}, output
    assert all(path.stat().st_mtime_ns >= time for path, time in checkpoints.items())
    assert "interrupted: " in output

    train(*arguments[2:])
    assert {record["status"] for record in records(tmp_path / "s").values()} == {"completed"}


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    devices = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    arguments = command(tmp_path, *devices, "epochs=2", "batch_size=8")
    answer = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (folder,) = (tmp_path / "s").iterdir()
    record, result = (json.loads((folder / name).read_text()) for name in ("trial.json", "result.json"))
    assert record["status"] == "completed"
    assert [path.name for path in folder.glob("*.log")] == ["train.log"]
    assert answer.stdout.count("best epoch") == 1
    assert answer.stdout.count("epoch 2/2") == 1
    # Both processes' parts are counted: 20 batches of 8 in two epochs, and all 40 images tested.
    assert result["images_per_second"] > 0
    assert (result["metrics"]["test/accuracy"] * 40) % 1 == pytest.approx(0, abs=1e-5)


def installed(engine: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(f"hydra_plugins.{engine}") is None
    return pytest.mark.skipif(missing, reason=f"{engine} is not installed: pip install '.[engines]'")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], marks=installed("hydra_joblib_launcher")),
        pytest.param(["hydra/launcher=submitit_local"], marks=installed("hydra_submitit_launcher")),
        pytest.param(["hydra/launcher=ray"], marks=installed("hydra_ray_launcher")),
    ],
    ids=["joblib", "submitit", "ray"],
)
def test_other_launchers_fill_the_same_folders(overrides: list[str], tmp_path: Path, train: Train) -> None:
    arguments = command(tmp_path, "-m", TROUBLE, "+callbacks.trouble.kind=none,raise")
    answer = subprocess.run([*arguments, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    statuses = {kind: record["status"] for kind, record in records(tmp_path / "s").items()}
    assert statuses == {"none": "completed", "raise": "failed"}
    assert "val/accuracy" in answer.stdout
    with pytest.raises(SystemExit):  # any launcher goes on with what another began
        train(*arguments[2:], "hydra/launcher=basic")
    assert len(records(tmp_path / "s")["raise"]["attempts"]) == 1

"""Files that are damaged, in the way, or not the trial's own, and what users write that looks like markup."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cv_lab.report.summary import StudySummary
from cv_lab.study import liveness
from cv_lab.study.liveness import is_alive
from cv_lab.study.record import UnreadableError, read_record
from tests.study.test_launcher import SMALL
from tests.study.test_study import write_trial

Train = Callable[..., Path]
DIVERGING = (*SMALL, "optimizer=sgd", "lr=1e38")


def records(study: Path) -> dict[int, Any]:
    """The trials' records by seed."""
    found = [json.loads(path.read_text()) for path in study.glob("*/trial.json")]
    return {record["seed"]: record for record in found}


def test_damaged_records_are_named_and_the_others_run(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    study = train(*SMALL, "seed=1")
    (path,) = study.glob("*/trial.json")
    for content in ("", '{"schema": 1}', "\x00\xff"):
        path.write_text(content)
        with pytest.raises(SystemExit) as exit_info:
            train("-m", *SMALL, "seed=1,2")
        assert exit_info.value.code == 1
        printed = capsys.readouterr().out
        assert "left out, since its trial.json" in printed
        assert str(path.parent) in printed
        assert path.read_text() == content
    completed = [
        p for p in study.glob("*/trial.json") if p != path and json.loads(p.read_text())["status"] == "completed"
    ]
    assert len(completed) == 1
    with pytest.raises(SystemExit) as exit_info:
        train(*SMALL, "seed=1")
    assert exit_info.value.code == 1
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempts", [1]),
        ("attempts", None),
        ("config", [1]),
        ("config", None),
        ("error", "Killed"),
        ("files", 1),
        ("monitor", "val/loss"),
        ("parameters", []),
        ("versions", "2.14"),
    ],
)
def test_a_record_with_a_field_of_another_type_is_damaged(tmp_path: Path, field: str, value: Any) -> None:
    record = {"schema": 1, "identity": "a", "status": "running", "parameters": {}, "overrides": [], "attempts": []}
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(record))
    assert read_record(path) == record
    path.write_text(json.dumps(record | {field: value}))
    with pytest.raises(UnreadableError, match=field):
        read_record(path)


@pytest.mark.parametrize("pid", ["x", -1, [], 10**30, None])
def test_what_is_no_process_is_not_alive(tmp_path: Path, pid: Any) -> None:
    record = {**liveness.this_process(), "pid": pid}
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(record))
    assert not liveness.holder_is_alive(path, record)


@pytest.mark.slow
def test_a_damaged_result_is_written_again(train: Train) -> None:
    study = train("-m", "hydra/launcher=basic", *SMALL, "seed=1,2")
    path, other = sorted(study.glob("*/result.json"))
    before = json.loads(path.read_text())["metrics"]
    kept = other.stat().st_mtime_ns
    for content in ("", "[]"):
        path.write_text(content)
        train("-m", *SMALL, "seed=1,2")
        assert json.loads(path.read_text())["metrics"] == before
    assert other.stat().st_mtime_ns == kept


def test_a_folder_with_files_of_others_is_refused_and_they_stay(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    for name in ("checkpoints/best.ckpt", "metrics.csv", "predictions/notes.txt", "main.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my {name}")
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit):
        train(*DIVERGING, "hydra.run.dir=.")
    assert "checkpoints/best.ckpt" in capsys.readouterr().out
    for name in ("checkpoints/best.ckpt", "metrics.csv", "predictions/notes.txt", "main.py"):
        assert (folder / name).read_text() == f"my {name}"


def test_a_failed_trial_that_is_tried_again_removes_only_what_it_wrote(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.chdir(folder)
    fails = (*SMALL, "epochs=3", "+callbacks.trouble._target_=tests.saboteur.RaiseInSecondEpoch", "hydra.run.dir=.")
    with pytest.raises(SystemExit):
        train(*fails)
    assert "checkpoints/last.ckpt" in json.loads((folder / "trial.json").read_text())["files"]
    own = ("checkpoints/mine.ckpt", "predictions/notes.txt", "events.out.tfevents.mine", "src/.cache.123", "a.csv")
    for name in own:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "predictions/old.png").write_text("of the failed attempt")
    record = json.loads((folder / "trial.json").read_text())
    record["files"] += ["predictions/old.png", "../outside"]
    (folder / "trial.json").write_text(json.dumps(record))
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(SystemExit):
        train(*fails)
    assert [json.loads((folder / "trial.json").read_text())["status"]] == ["failed"]
    assert all((folder / name).read_text() == "mine" for name in own)
    assert (tmp_path / "outside").exists()
    assert not (folder / "predictions/old.png").exists()


@pytest.mark.slow
def test_failures_that_would_repeat_are_not_run_again(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("-m", *SMALL, "optimizer=sgd", "lr=1e38,1e-3")
    for more in ((), (), ("retry_failed=true",)):
        with pytest.raises(SystemExit) as exit_info:
            study = train(*sweep, *more)
        assert exit_info.value.code == 1
    printed = capsys.readouterr().out
    assert "failed before" in printed
    assert "retry_failed=true runs it again" in printed
    study = next(
        Path(line.partition(": ")[2].partition(": ")[0]) for line in printed.splitlines() if line.startswith("failed: ")
    )
    record = json.loads((study / "trial.json").read_text())
    assert record["error"]["repeats"] is True
    assert len(record["attempts"]) == 1


def test_what_users_write_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, tags in enumerate(("[/a/b]", "[bold]x", "[default,ema]")):
        write_trial(tmp_path / "s", {"tags": tags.replace("/", "_"), "seed": 1}, number / 10)
        (path,) = (p for p in tmp_path.glob("s/*/trial.json") if tags.replace("/", "_") in str(p))
        path.write_text(path.read_text().replace(tags.replace("/", "_"), tags))
    StudySummary().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "s")}}}))
    printed = capsys.readouterr().out
    assert all(tags in printed for tags in ("[/a/b]", "[bold]x", "[default,ema]"))


def test_errors_of_table_and_report_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no such luck")

    write_trial(tmp_path, {"seed": 1}, 0.5)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    for name in ("cv_lab.report.terminal.print_table", "cv_lab.report.page.write_report"):
        with monkeypatch.context() as patch:
            patch.setattr(name, fail)
            with pytest.raises(SystemExit) as exit_info:
                StudySummary().on_multirun_end(config)
        assert exit_info.value.code == 1
        assert "no such luck" in capsys.readouterr().err


def test_a_process_on_another_host_lives_as_long_as_it_gives_signs(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text("{}")
    elsewhere = {"host": "elsewhere", "machine": "another boot", "pid": os.getpid(), "pid_start": 1.0}
    assert is_alive(path, elsewhere)
    now = path.stat().st_mtime
    for seconds in (liveness.STALE_SECONDS + 5, -liveness.STALE_SECONDS - 5):  # the clock may be set back
        os.utime(path, (now - seconds, now - seconds))
        assert not is_alive(path, elsewhere)
    heartbeat = liveness.Heartbeat(path, "own")
    heartbeat.stop()
    # The same system under another name is asked for the process itself.
    here = {**liveness.this_process(), "host": "renamed"}
    assert is_alive(path, here)
    assert not is_alive(path, {**here, "pid_start": 1.0})


def test_a_trial_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trial.json"
    path.write_text('{"lease": "own"}')
    os.utime(path, (0, 0))
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.01)
    heartbeat = liveness.Heartbeat(path, "own")
    for _ in range(1000):
        if path.stat().st_mtime > 0:
            break
        heartbeat._stopped.wait(0.01)
    heartbeat.stop()
    assert path.stat().st_mtime > 0


@pytest.mark.parametrize("name", ["../x", "", "/tmp/x", "x" * 300])
def test_studies_stay_in_their_folder(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for mode in ((), ("-m",)):
        with pytest.raises(SystemExit) as exit_info:
            train(*mode, *SMALL, f"study={name}")
        assert exit_info.value.code == 1
        assert "error: study=" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_an_experiment_may_choose_the_launcher(train: Train, tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    from cv_lab.config import register_config
    from tests.conftest import ROOT
    from tests.study.test_identity import write_experiment

    register_config()
    write_experiment(tmp_path, "mine", "defaults:\n  - override /hydra/launcher: basic")
    path = f"hydra.searchpath=[file://{tmp_path / 'mine'}]"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for overrides, target in (([], "ProcessLauncher"), (["experiment=mine"], "BasicLauncher")):
            config = compose("train", [path, *overrides], return_hydra_config=True)
            assert config.hydra.launcher._target_.endswith(target)

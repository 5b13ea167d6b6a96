"""The same command on several hosts over one folder."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cv_lab.files import FENCES, read_json, write_json
from cv_lab.study import liveness
from cv_lab.study.liveness import Watch
from cv_lab.study.record import TakenOverError
from tests.conftest import ROOT
from tests.study.fleet import arguments, follow


class Fleet:
    """Commands over one folder, each on a pretended host."""

    def __init__(self, studies: Path, *overrides: str) -> None:
        self.studies, self.overrides = studies, overrides
        self.commands: dict[str, subprocess.Popen[str]] = {}

    def start(self, host: str, *overrides: str) -> subprocess.Popen[str]:
        with (self.studies / f"{host}.log").open("a") as log:
            self.commands[host] = subprocess.Popen(
                arguments(self.studies, *self.overrides, *overrides),
                env={**os.environ, "PRETENDED_HOST": host},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                text=True,
            )
        return self.commands[host]

    def log(self, host: str) -> str:
        return (self.studies / f"{host}.log").read_text()

    def records(self) -> dict[Path, dict[str, Any]]:
        return {path: read_json(path) for path in self.studies.glob("*/*/trial.json")}

    def running(self) -> list[dict[str, Any]]:
        return [record for record in self.records().values() if record["status"] == "running"]

    def wait_for_trial(self) -> dict[str, Any]:
        """The record of the first trial that is running and has a checkpoint."""
        for _ in range(1000):
            for path, record in self.records().items():
                if record["status"] == "running" and (path.parent / "checkpoints" / "last.ckpt").exists():
                    return record
            time.sleep(0.02)
        raise AssertionError("no trial has begun")

    def notes(self) -> Counter[str]:
        return Counter((self.studies / "notes.txt").read_text().splitlines())

    def assert_complete(self, trials: int, epochs: int = 3) -> None:
        """Each trial is completed once, and ended as it does alone."""
        records = self.records()
        assert len(records) == trials
        notes = self.notes()
        for path, record in records.items():
            assert record["status"] == "completed", record
            values, value = [], 0.5
            for _ in range(epochs):
                value = follow(value, record["config"]["lr"], record["seed"])
                values.append(value)
            rows = read_json(path.parent / "checkpoints" / "last.ckpt")
            assert [row["value"] for row in rows] == values
            assert (path.parent / "metrics.csv").read_text().splitlines()[1:] == [
                f"{epoch},{value!r}" for epoch, value in enumerate(values, 1)
            ]
            assert read_json(path.parent / "result.json")["monitor"]["best"] == max(values)
            assert notes[f"{path.parent.name} completed"] <= 1  # a kill may come before the note
            again = sum(max(0, notes[f"{path.parent.name} {epoch}"] - 1) for epoch in range(1, epochs + 1))
            assert again <= len(record["attempts"])
            assert not list(path.parent.rglob(".*.[0-9]*"))


def rampage(studies: Path, hosts: int, trials: int, kills: int, seed: int = 1) -> None:
    """Kill and pause commands and trials of a fleet until its study is complete, and see whether anything is lost."""
    chance = random.Random(seed)
    rates = ",".join(str(number / 1000) for number in range(1, trials + 1))
    fleet = Fleet(studies, f"lr={rates}")
    for number in range(hosts):
        fleet.start(f"h{number}")
    paused: list[int] = []
    while kills:
        time.sleep(chance.uniform(0.1, 0.6))
        for pid in paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        host = chance.choice(list(fleet.commands))
        mine = [record["pid"] for record in fleet.running() if record["host"] == host]
        action = chance.choice(["kill command", "kill trial", "pause trial"])
        if action != "kill command" and mine:
            with suppress(ProcessLookupError):
                os.kill(mine[0], signal.SIGKILL if action == "kill trial" else signal.SIGSTOP)
                kills -= 1
            paused = [mine[0]] if action == "pause trial" else []
            time.sleep(chance.uniform(0, 2.5) if paused else 0)
        elif action == "kill command" or fleet.commands[host].poll() is not None:
            kills -= fleet.commands[host].poll() is None
            fleet.commands.pop(host).kill()
            fleet.start(chance.choice([host, f"{host}x"]))  # of the same machine, or of another
    for pid in paused:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    for command in fleet.commands.values():
        assert command.wait(300) == 0
    assert fleet.start("last").wait(300) == 0, fleet.log("last")
    assert not any("Traceback" in path.read_text() for path in studies.glob("*.log"))
    fleet.assert_complete(trials)


def test_nothing_is_lost_or_run_twice_by_hosts_that_are_killed(tmp_path: Path) -> None:
    rampage(tmp_path, hosts=2, trials=8, kills=4)


def test_a_paused_process_cannot_write_after_its_trial_was_taken_over(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "seconds=0.3")
    first = fleet.start("first")
    pid = fleet.wait_for_trial()["pid"]
    os.kill(pid, signal.SIGSTOP)
    second = fleet.start("second")
    assert second.wait(60) == 0, fleet.log("second")
    assert "taken over from process" in fleet.log("second")
    files = {path: path.read_bytes() for path in tmp_path.glob("s/*/*") if path.suffix in (".json", ".csv")}
    os.kill(pid, signal.SIGCONT)
    assert first.wait(60) == 0, fleet.log("first")
    assert fleet.notes()["seconds=0.3 TakenOverError"] == 1
    assert {path: path.read_bytes() for path in files} == files
    fleet.assert_complete(1)


def test_what_runs_elsewhere_is_named_and_left(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "seconds=1", "epochs=60")
    first = fleet.start("first")
    pid = fleet.wait_for_trial()["pid"]
    assert fleet.start("second").wait(60) == 0
    assert f"(run by process {pid} on first)" in fleet.log("second")
    assert f"#0 is still run by process {pid} on first" in fleet.log("second")
    assert first.poll() is None
    assert [record["pid"] for record in fleet.running()] == [pid]
    first.kill()
    first.wait()


def test_a_trial_without_a_lease_is_watched_before_it_is_taken_over(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "lr=0.1,0.2", "jobs=2")
    assert fleet.start("first").wait() == 0
    for (path, record), damage in zip(fleet.records().items(), ({"lease": None}, {}), strict=True):
        del record["lease"]
        write_json(path, record | damage | {"status": "running", "host": "gone", "machine": "gone"})
    assert fleet.start("second").wait(60) == 0
    assert fleet.log("second").count("is taken over from") == 2
    assert {record["status"] for record in fleet.records().values()} == {"completed"}


def test_two_hosts_halve_a_grid_as_one_does(tmp_path: Path) -> None:
    rates = [0.1, 0.2, 0.3]
    fleet = Fleet(tmp_path, f"lr={','.join(map(str, rates))}", "epochs=4", "halving=3")
    commands = [fleet.start(f"h{number}") for number in range(2)]
    assert [command.wait(120) for command in commands] == [0, 0], fleet.log("h0") + fleet.log("h1")
    statuses = {record["config"]["lr"]: record["status"] for record in fleet.records().values()}
    best = max(rates, key=lambda rate: follow(0.5, rate, 1))
    assert statuses == {rate: "completed" if rate == best else "paused" for rate in rates}
    notes = fleet.notes()
    assert [notes[f"epochs=4,lr={rate} 1"] for rate in rates] == [1, 1, 1]
    assert [notes[f"epochs=4,lr={rate} 4"] for rate in rates] == [int(rate == best) for rate in rates]


def test_clocks_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trial.json"
    path.write_text("{}")
    record = {"host": "elsewhere", "machine": "another boot", "pid": os.getpid(), "pid_start": 1.0, "lease": "a"}
    clock = [1000.0]
    monkeypatch.setattr(liveness.time, "monotonic", lambda: clock[0])
    watch = Watch()

    def look(seconds: float) -> bool | None:
        clock[0] += seconds
        return watch.look(path, record)

    for skew in (-3600, 3600):  # the other host's clock
        os.utime(path, (time.time() + skew,) * 2)
        watch = Watch()
        assert [look(10) for _ in range(10)] == [None] * 9 + [False]
        watch = Watch()
        assert look(0) is None
        os.utime(path, (time.time() + skew - 100,) * 2)  # set back meanwhile
        assert [look(10) for _ in range(10)] == [True] * 9 + [False]
    watch = Watch()
    assert [look(10) for _ in range(5)] == [None] * 5
    assert look(10_000) is None  # this machine was suspended, and perhaps the other one, too
    assert [look(10) for _ in range(9)] == [None] * 8 + [False]


def test_a_copy_of_a_folder_is_not_run_by_the_process_of_the_original(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    record = {**liveness.this_process(), "folder_inode": tmp_path.stat().st_ino, "lease": "a"}
    write_json(path, record)
    assert liveness.holder_is_alive(path, record) is True
    assert liveness.holder_is_alive(path, {**record, "folder_inode": 1}) is None
    assert liveness.holder_is_alive(path, {**record, "pid_start": 1.0}) is False


def test_a_fence_keeps_files_from_getting_their_names(tmp_path: Path) -> None:
    def taken_over() -> Any:
        raise TakenOverError("taken over")

    FENCES[tmp_path / "trial"] = taken_over
    try:
        with pytest.raises(TakenOverError):
            write_json(tmp_path / "trial" / "checkpoints" / "last.ckpt", 1)
        write_json(tmp_path / "other.json", 1)
    finally:
        del FENCES[tmp_path / "trial"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["other.json"]
    assert json.loads((tmp_path / "other.json").read_text()) == 1

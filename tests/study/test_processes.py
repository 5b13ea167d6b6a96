"""Processes of trials that cannot be started, or are interrupted before the trial could handle it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from cv_lab.study import processes
from tests.conftest import ROOT

INTERRUPTED = """
import signal, sys
from cv_lab.study import processes
def interrupted(payload):
    signal.signal(signal.SIGINT, processes._interrupt_once)
    signal.raise_signal(signal.SIGINT)
processes.cloudpickle.loads = interrupted
processes._run_trial(b"", processes.Slot(1, None), "", None)
"""


def test_a_killed_fork_server_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    class Process:
        sentinel, pid = 7, 1

        def __init__(self, **options: Any) -> None:
            pass

        def start(self) -> None:
            starts.append(self)
            if len(starts) < processes.STARTS:
                raise EOFError

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Process)
    monkeypatch.setattr(processes, "start_context", lambda preload: context)
    config = OmegaConf.create({"jobs": 1, "trial_timeout": None, "fail_fast": False})
    runner = processes.Runner(config, [], [], lambda job: ())
    runner._start(SimpleNamespace(number=0), runner.free.pop())  # type: ignore[arg-type]
    assert len(starts) == processes.STARTS
    assert list(runner.running) == [7]


def test_an_interrupt_before_the_trial_ends_it_without_a_traceback() -> None:
    answer = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (130, "")


def test_requests_of_the_launcher_reach_the_trial(tmp_path: Path) -> None:
    theirs, ours = multiprocessing.Pipe(duplex=False)
    with (tmp_path / "log").open("w") as log_file:
        process = multiprocessing.get_context("fork").Process(target=_listen_until, args=(theirs, ours, log_file))
        process.start()
        theirs.close()
        ours.send(processes.WRITE_STACK)
        ours.send(processes.INTERRUPT)
        process.join(20)
    assert process.exitcode == 99
    assert "most recent call first" in (tmp_path / "log").read_text()


def _listen_until(theirs: Connection, ours: Connection, log_file: Any) -> None:
    ours.close()
    signal.signal(signal.SIGINT, processes._interrupt_once)
    try:
        threading.Thread(target=processes._listen, args=(theirs, log_file), daemon=True).start()
        for _ in range(200):
            threading.Event().wait(0.05)
    except KeyboardInterrupt:
        os._exit(99)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with processes.signals_as_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)

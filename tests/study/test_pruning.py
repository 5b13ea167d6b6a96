"""Which trials a pruner stops, compared with Optuna's pruners."""

import math
import random
from pathlib import Path

import pytest

from cv_lab.files import read_json, write_json
from cv_lab.study.pruning import Peer, hyperband, is_hopeless, median, oriented, successive_halving
from tests.report.folders import make_trial


def curves(seed: int, count: int, epochs: int) -> list[list[float]]:
    draw = random.Random(seed)
    return [[round(draw.random(), 2) for _ in range(epochs)] for _ in range(count)]


@pytest.mark.parametrize("pruner", ["median", "successive_halving"])
@pytest.mark.parametrize("seed", range(3))
def test_trials_end_where_optuna_ends_them(pruner: str, seed: int) -> None:
    optuna = pytest.importorskip("optuna", "4.9")
    theirs = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=5),
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    }[pruner]
    rule = {"median": median, "successive_halving": successive_halving}[pruner]
    study = optuna.create_study(direction="maximize", pruner=theirs)
    peers: list[Peer] = []
    ends = []
    for number, curve in enumerate(curves(seed, 30, 10)):
        trial = study.ask()
        for epoch, value in enumerate(curve, 1):
            trial.report(value, epoch)
            stop = rule(curve[:epoch], peers)
            assert stop == trial.should_prune()
            if stop:
                break
        completed = not stop
        state = optuna.trial.TrialState.COMPLETE if completed else optuna.trial.TrialState.PRUNED
        study.tell(trial, curve[-1] if completed else None, state)
        peers.append(Peer(number, curve[:epoch], completed))
        ends.append(epoch)
    assert min(ends) < max(ends)


def test_each_hyperband_bracket_has_its_own_first_rung_and_peers() -> None:
    better = [Peer(number, [1.0] * 9, True) for number in range(30)]
    ends = {}
    for number in (30, 31, 32):  # the brackets of 9 epochs begin after 1, 3 and 9
        ends[number] = next((e for e in range(1, 10) if hyperband([0.5] * e, better, number, 9)), None)
    assert ends == {30: 1, 31: 3, 32: 9}
    others = [peer for peer in better if peer.number % 3 != 0]
    assert not hyperband([0.5], others, 30, 9)


def test_what_is_no_number_is_the_worst_and_smaller_may_be_better() -> None:
    assert oriented([{"val/loss": 2.0}, {"val/loss": math.nan}, {}], "val/loss", -1) == [-2.0, -math.inf, -math.inf]
    assert successive_halving([-math.inf], [])
    assert not successive_halving([0.0], [])


def test_trials_of_other_lengths_or_damaged_ones_are_not_compared_with(tmp_path: Path) -> None:
    record = {
        "monitor": {"name": "val/accuracy", "mode": "max"},
        "number": 9,
        "parameters": read_json(make_trial(tmp_path, "own") / "trial.json")["parameters"],
    }
    low = [{"val/accuracy": 0.1}]
    make_trial(tmp_path, "longer", values=[0.9] * 5, parameters={"epochs": 50})
    write_json(tmp_path / "damaged" / "trial.json", [])
    assert not is_hopeless("successive_halving", low, tmp_path / "own", record)
    make_trial(tmp_path, "better", values=[0.9] * 5)
    assert is_hopeless("successive_halving", low, tmp_path / "own", record)
    record["monitor"] = {"name": "val/accuracy", "mode": "min"}
    assert not is_hopeless("successive_halving", low, tmp_path / "own", record)

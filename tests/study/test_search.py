"""What a search proposes, from the folders of the trials so far."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cv_lab.config import KEYS
from cv_lab.files import read_json, write_json
from tests.conftest import PLAIN, TINY
from tests.report.folders import make_trial

pytest.importorskip("optuna", "4.9")

from hydra.core.override_parser.overrides_parser import OverridesParser

from cv_lab.study.search import SAMPLERS, Search
from cv_lab.study.space import Dimension, dimension


def space(*sweeps: str) -> dict[str, Dimension]:
    parsed = OverridesParser.create().parse_overrides(list(sweeps))
    return {override.get_key_element(): dimension(override, None) for override in parsed}


Train = Callable[..., Path]
RATES = ("lr=tag(log,interval(1e-4,1e-1))", "optimizer=adam,sgd")


def search(study: Path, *sweeps: str, sampler: str = "tpe", seed: int = 1, **options: Any) -> Search:
    return Search(study, ["epochs=5", "jobs=2"], space(*(sweeps or RATES)), KEYS, sampler, options, seed)


def value(params: dict[str, Any]) -> float:
    """Best at lr=0.01 and adam."""
    return 0.9 - 0.1 * abs(math.log10(params["lr"]) + 2) - (0.2 if params.get("optimizer") == "sgd" else 0.0)


def write(one: Search, number: int, params: dict[str, Any], best: float | None, status: str = "completed") -> Path:
    """The folder of a proposed trial."""
    folder = make_trial(one.study, f"t{number}", best, status)
    record = read_json(folder / "trial.json")
    # As the next command, with jobs of another number, would find it.
    overrides = [text.replace("jobs=2", "jobs=1") for text in one.overrides(params)]
    record |= {"overrides": overrides, "number": number, "attempts": []}
    record["monitor"] = {"name": "val/accuracy", "mode": "max"}
    write_json(folder / "trial.json", record)
    return folder


def run(one: Search, count: int) -> list[dict[str, Any]]:
    proposed = []
    for _ in range(count):
        number, params = one.propose() or (-1, {})
        one.add(number, params, write(one, number, params, value(params)))
        proposed.append(params)
    return proposed


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc", "random"])
def test_a_search_begun_anew_over_the_same_folders_proposes_the_same(tmp_path: Path, sampler: str) -> None:
    sweeps = ("lr=tag(log,interval(1e-4,1e-1))", "label_smoothing=interval(0,0.2)")
    whole = run(search(tmp_path / "whole", *sweeps, sampler=sampler), 14)
    for _ in range(7):  # a new process for every two trials
        run(search(tmp_path / "killed", *sweeps, sampler=sampler), 2)
    begun_anew = search(tmp_path / "killed", *sweeps, sampler=sampler)
    assert [known.params for known in begun_anew.known()] == whole
    assert len({str(params) for params in whole}) == 14
    assert run(search(tmp_path / "other", *sweeps, sampler=sampler, seed=2), 3) != whole[:3] or sampler == "qmc"


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_samplers_learn_from_the_folders(tmp_path: Path, sampler: str) -> None:
    sweeps = ("lr=tag(log,interval(1e-6,1))", "weight_decay=interval(0,1)")
    rates = [params["lr"] for params in run(search(tmp_path, *sweeps, sampler=sampler), 36)]
    distances = [abs(math.log10(rate) + 2) for rate in rates]
    assert sum(distances[-8:]) / 8 < 0.6 * sum(distances[:8]) / 8


def test_gp_proposes_from_the_folders(tmp_path: Path) -> None:
    run(search(tmp_path, sampler="random"), 10)
    number, params = search(tmp_path, sampler="gp").propose() or (-1, {})
    assert number == 10
    assert abs(math.log10(params["lr"]) + 2) < 1.5
    assert search(tmp_path, sampler="gp").propose() == (number, params)


def test_failed_trials_count_as_failed_pruned_ones_by_their_epochs_and_others_as_running(tmp_path: Path) -> None:
    one = search(tmp_path)
    params = [{"lr": rate, "optimizer": "adam"} for rate in (1e-4, 1e-3, 1e-2)]
    write(one, 0, params[0], None, "failed")
    write(one, 1, params[1], None, "pruned")
    write(one, 2, params[2], 0.8)
    one.add(3, {"lr": 0.05, "optimizer": "sgd"}, tmp_path / "t3")  # started a moment ago
    trials = one._study(one.known()).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "PRUNED", "COMPLETE", "RUNNING"]
    assert list(trials[1].intermediate_values) == [1, 2, 3, 4, 5]
    assert trials[2].value == 0.8
    assert trials[3].params == {"lr": 0.05, "optimizer": "sgd"}
    assert one.summary()["best"] == {"trial": "t2", "lr": 0.01, "optimizer": "adam"}


def test_the_direction_is_that_of_the_metric(tmp_path: Path) -> None:
    one = search(tmp_path)
    folder = write(one, 0, {"lr": 0.01, "optimizer": "adam"}, 0.8)
    assert one._study(one.known()).direction.name == "MAXIMIZE"
    result = read_json(folder / "result.json")
    write_json(folder / "result.json", result | {"monitor": result["monitor"] | {"mode": "min"}})
    assert one._study(one.known()).direction.name == "MINIMIZE"
    (folder / "result.json").unlink()  # where all were pruned, their records say it
    record = read_json(folder / "trial.json")
    write_json(folder / "trial.json", record | {"status": "pruned", "monitor": {"name": "val/loss", "mode": "min"}})
    assert one._study(one.known()).direction.name == "MINIMIZE"


def test_trials_of_another_search_do_not_count(tmp_path: Path) -> None:
    one = search(tmp_path)
    run(one, 2)
    for number, overrides in enumerate(
        (
            ["epochs=6", "lr=0.01", "optimizer=adam"],
            ["epochs=5", "lr=5.0", "optimizer=adam"],
            ["epochs=5", "lr=0.01"],
            ["epochs=5", "lr=0.01", "optimizer=adam", "experiment=mine"],
        ),
        10,
    ):
        folder = write(one, number, {"lr": 0.01, "optimizer": "adam"}, 0.5)
        write_json(folder / "trial.json", read_json(folder / "trial.json") | {"overrides": overrides})
    assert [known.number for known in search(tmp_path).known()] == [0, 1]


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    one = search(tmp_path, "lr=choice(1e-3,1e-2)", "optimizer=adam,sgd")
    texts = []
    while (proposed := one.propose()) is not None:
        number, params = proposed
        one.add(number, params, write(one, number, params, 0.5))
        texts.append(tuple(one.overrides(params)[2:]))
    assert len(texts) == len(set(texts)) == 4


def test_importance_follows_the_metric(tmp_path: Path) -> None:
    one = search(tmp_path, "lr=tag(log,interval(1e-4,1e-1))", "label_smoothing=interval(0,0.2)", sampler="random")
    run(one, 9)
    assert one.summary()["importance"] == {}  # too few
    run(one, 31)
    importance = one.summary()["importance"]
    assert importance["lr"] > 0.7
    assert sum(importance.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("sweep", "drawn", "text"),
    [
        ("lr=tag(log,interval(1e-4,1e-1))", 0.0123456789, "0.01235"),
        ("lr=interval(0.00012345,1)", 0.00012345, "0.00012345"),  # rounded it would lie outside
        ("lr=range(0.1,0.5,0.1)", 0.1 + 0.2, "0.3"),
        ("epochs=range(3,12,3)", 6, "6"),
        ("model.width=tag(log,int(interval(8,64)))", 17, "17"),
        ("model.width=tag(int,interval(8,64))", 17, "17"),
        ("optimizer=adam,sgd", "sgd", "sgd"),
        ("+note=choice('a b',c)", r"a\ b", r"a\ b"),
    ],
)
def test_values_stand_in_overrides_as_they_are_read_back(sweep: str, drawn: Any, text: str) -> None:
    (one,) = space(sweep).values()
    assert one.text(drawn) == text
    assert one.text(one.value(text)) == text


def test_ends_of_ranges() -> None:
    (width,) = space("model.width=range(8,64,8)").values()
    assert (width.value("8"), width.value("56")) == (8, 56)
    for outside in ("64", "9", "0"):
        with pytest.raises(ValueError, match="out of range"):
            width.value(outside)


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ("lr=tag(logarithm,interval(1e-4,1e-1))", "no tag logarithm"),
        ("lr=tag(log,range(0.1,0.5,0.1))", "steps of 0.1 are not logarithmic"),
        ("lr=tag(log,choice(0.1,0.5))", "choices have no logarithm"),
        ("epochs=range(5,5)", "empty"),
        ("lr=tag(log,interval(0,1))", "low"),
    ],
)
def test_what_cannot_be_searched_is_refused(sweep: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        space(sweep)


def test_unknown_samplers_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of tpe"):
        search(tmp_path, sampler="tpee")
    with pytest.raises(ValueError, match="startup"):
        search(tmp_path, startup=3)
    with pytest.raises(ValueError, match="nothing to search"):
        Search(tmp_path, ["lr=0.1"], {}, KEYS, "tpe", {}, 1)
    assert set(SAMPLERS) == {"tpe", "gp", "cmaes", "qmc", "random"}


TINY_SEARCH = (
    *("-m", *TINY, *PLAIN, "model=small_cnn", "model._target_=tests.saboteur.DropoutNet", "model.width=8"),
    *("hydra/sweeper=search", "optimizer=sgd", "lr=choice(1e-3,1e-2,1e-1,1e38)"),
)


def test_trials_run_past_a_failure_and_go_on_from_their_folders(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:  # since one of them failed
        train(*TINY_SEARCH, "trials=9", "jobs=2")
    assert exit_info.value.code == 1
    assert "all that can be searched has been tried" in capsys.readouterr().out
    records = [read_json(path) for path in tmp_path.glob("s/*/trial.json")]
    assert {record["parameters"]["lr"]: record["status"] for record in records} == {
        **dict.fromkeys((1e-3, 1e-2, 1e-1), "completed"),
        1e38: "failed",
    }
    assert sorted(record["number"] for record in records) == [0, 1, 2, 3]
    with pytest.raises(SystemExit):
        train(*TINY_SEARCH, "trials=9", "jobs=1")
    assert "4 of them known" in capsys.readouterr().out
    assert [read_json(path)["attempts"] for path in tmp_path.glob("s/*/trial.json")] == [[]] * 4


def test_hopeless_trials_are_pruned_and_stay_so(train: Train, tmp_path: Path) -> None:
    search = (*TINY_SEARCH, "epochs=3", "pruner=successive_halving", "lr=choice(1e-1,1e-2,1e-3,1e-4,1e-5)", "trials=5")
    train(*search)
    records = {path.parent: read_json(path) for path in tmp_path.glob("s/*/trial.json")}
    pruned = [folder for folder, record in records.items() if record["status"] == "pruned"]
    assert len(records) == 5
    assert pruned
    assert all(len((folder / "metrics.csv").read_text().splitlines()) == 2 for folder in pruned)
    assert not any((folder / "result.json").exists() for folder in pruned)
    train(*search)
    assert {path.parent: read_json(path) for path in tmp_path.glob("s/*/trial.json")} == records


@pytest.mark.slow
def test_trials_of_changed_files_do_not_count(train: Train, tmp_path: Path) -> None:
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    command = ("-m", *TINY, *PLAIN, "model=small_cnn", "model.width=4", "hydra/sweeper=search", "lr=choice(1e-3,1e-2)")
    for smoothing in (0.1, 0.2, 0.1):
        file.write_text(f"# @package _global_\nlabel_smoothing: {smoothing}\n")
        train(*command, "trials=1", "experiment=mine", f"hydra.searchpath=[file://{tmp_path / 'conf'}]")
    records = [read_json(path) for path in tmp_path.glob("s/*/trial.json")]
    assert sorted(record["config"]["label_smoothing"] for record in records) == [0.1, 0.2]

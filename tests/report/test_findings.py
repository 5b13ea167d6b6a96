"""What the sentences claim, and what they do not."""

import json
from pathlib import Path

import pytest

from cv_lab.report.findings import findings
from cv_lab.report.sections import sections
from cv_lab.study.read import read_study
from tests.report.folders import failed, make_trial


def told(study: Path) -> dict[str, str]:
    """The findings of a study of one section, by kind; every trial that they name is there."""
    (section,) = sections(read_study(study).trials)
    found = findings(section)
    names = {trial.name for trial in section.trials}
    assert all(finding.trials and set(finding.trials) <= names for finding in found)
    return {kind: " ".join(f.text for f in found if f.kind == kind) for kind in dict.fromkeys(f.kind for f in found)}


def make_grid(study: Path, cells: dict[tuple[str, float], list[float]]) -> None:
    for (optimizer, lr), scores in cells.items():
        for seed, best in enumerate(scores, 1):
            values = {"optimizer": optimizer, "lr": lr, "seed": seed}
            make_trial(study, f"lr={lr},optimizer={optimizer},seed={seed}", best, parameters=values)


@pytest.mark.parametrize(
    ("second", "judgement"),
    [
        ([0.60, 0.62], "9.00 points behind: more than twice the deviation over seeds, 1.41 points"),
        (
            [0.68, 0.70],
            "1.00 points behind: no more than the deviation over seeds, 1.41 points, so these figures do not",
        ),
        (
            [0.67, 0.69],
            "2.00 points behind: one to two times the deviation over seeds, 1.41 points, so more seeds would",
        ),
        ([0.68], "2.00 points behind (one of the two has a single seed, so how much of it is chance is not known)"),
    ],
)
def test_winner_is_compared_with_the_spread_over_seeds(tmp_path: Path, second: list[float], judgement: str) -> None:
    make_grid(tmp_path, {("adam", 0.1): [0.69, 0.71], ("sgd", 0.1): second})
    words = told(tmp_path)["winner"]
    assert words.startswith("Best of 2 settings is adam: val/accuracy 70.00 % ± 1.41, test/accuracy 69.00 %")
    assert judgement in words


def test_one_seed_is_called_one_seed(tmp_path: Path) -> None:
    make_grid(tmp_path, {("adam", 0.1): [0.7], ("sgd", 0.1): [0.5]})
    found = told(tmp_path)
    assert "(one seed)" in found["winner"]
    assert "one seed each, so how much of it is chance is not known" in found["winner"]
    assert "with one seed, so nothing above is compared with chance" in found["seeds"]


def test_lower_losses_win_and_are_no_per_cent(tmp_path: Path) -> None:
    for lr, best in ((0.1, 0.5), (0.01, 2.25)):
        monitor = {"name": "val/loss", "mode": "min", "best": best, "epoch": 1, "validation": "split"}
        make_trial(tmp_path, f"lr={lr}", best, parameters={"lr": lr}, monitor="val/loss")
        path = tmp_path / f"lr={lr}" / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"monitor": monitor}))
    assert "Best of 2 settings is lr 0.1: val/loss 0.5" in told(tmp_path)["winner"]


def test_best_learning_rate_that_differs_by_optimizer_is_told_with_its_cost(tmp_path: Path) -> None:
    cells = {("adam", 0.01): 0.4, ("adam", 0.001): 0.7, ("sgd", 0.01): 0.65, ("sgd", 0.001): 0.5}
    make_grid(tmp_path, {key: [value, value + 0.01] for key, value in cells.items()})
    words = told(tmp_path)["interaction"]
    assert words.startswith("The best lr differs by optimizer: 0.001 for adam and 0.01 for sgd.")
    assert "With 0.001 for all, sgd falls 15.00 points behind its own best: more than twice" in words


def test_interaction_within_the_spread_is_called_chance(tmp_path: Path) -> None:
    cells = {("adam", 0.01): 0.4, ("adam", 0.001): 0.7, ("sgd", 0.01): 0.605, ("sgd", 0.001): 0.6}
    make_grid(tmp_path, {key: [value, value + 0.03] for key, value in cells.items()})
    words = told(tmp_path)["interaction"]
    assert "this may be chance" in words
    assert "differs" not in words


def test_same_best_value_everywhere_is_told_too(tmp_path: Path) -> None:
    cells = {("adam", 0.01): 0.4, ("adam", 0.001): 0.7, ("sgd", 0.01): 0.3, ("sgd", 0.001): 0.5}
    make_grid(tmp_path, {key: [value] for key, value in cells.items()})
    assert told(tmp_path)["interaction"] == "The best lr is 0.001 for every optimizer tried (adam, sgd)."


def test_best_value_at_the_edge_of_what_was_tried(tmp_path: Path) -> None:
    for i, best in enumerate((0.6, 0.5, 0.4)):
        make_trial(tmp_path, f"t{i}", best, parameters={"lr": 10.0**-i})
    assert told(tmp_path)["edge"] == "The best lr, 1, is the largest tried: what lies beyond is not known."


def test_curves_of_a_trial_without_a_result_are_judged(tmp_path: Path) -> None:
    make_trial(tmp_path, "well", 0.5)
    losses = [2.0, 1.0, 3.0, 9.0, 1.2e10]
    make_trial(tmp_path, "bad", None, "interrupted", parameters={"lr": 0.1}, train_loss=losses)
    found = told(tmp_path)["diverged"]
    assert found.startswith("1 of 2 trials diverged. lr 0.1: ")
    assert "rose from 1 in epoch 2 to 1.2e+10" in found


def test_healthy_trials_raise_no_warning(tmp_path: Path) -> None:
    make_trial(tmp_path, "a", 0.5)
    make_trial(tmp_path, "b", 0.45, parameters={"lr": 0.1})
    kinds = {"diverged", "overfitted", "underfitted", "collapsed", "failed", "unfinished"}
    assert not kinds & told(tmp_path).keys()


def test_underfitted_trials(tmp_path: Path) -> None:
    make_trial(tmp_path, "a", 0.5)
    make_trial(tmp_path, "b", 0.2, parameters={"lr": 0.1})
    found = told(tmp_path)
    assert found["underfitted"].startswith("1 of 2 trials underfitted. lr 0.1: train/accuracy is only 21.00 %")


def test_two_trials_are_quoted_others_named_and_advice_is_given_once(tmp_path: Path) -> None:
    for name, share in (("a", 97), ("b", 98), ("c", 99)):
        message = f"{share} % of all pixels are background. Try class weights"
        finding = {"kind": "collapse", "epoch": 2, "message": message, "recovered": None}
        make_trial(tmp_path, name, 0.5, parameters={"lr": share}, findings=[finding])
    assert told(tmp_path)["collapsed"] == (
        "3 of 3 trials collapsed. lr 97: from epoch 2 on, 97 % of all pixels are background. "
        "lr 98: from epoch 2 on, 98 % of all pixels are background. Likewise lr 99. Try class weights."
    )


def test_findings_of_a_trial_itself_are_quoted_unless_it_recovered(tmp_path: Path) -> None:
    messages = [
        {"kind": "collapse", "epoch": 2, "message": "97 % of all pixels are background", "recovered": None},
        {"kind": "overfitting", "epoch": 3, "message": "never mind", "recovered": 4},
        {"kind": "of_another_day", "epoch": 1, "message": "strange", "recovered": None},
    ]
    make_trial(tmp_path, "a", 0.5, findings=messages)
    found = told(tmp_path)
    assert "from epoch 2 on, 97 % of all pixels are background." in found["collapsed"]
    assert "overfitted" not in found
    assert "from epoch 1 on, strange." in found["told"]


def test_failures_of_one_reason_are_one_finding(tmp_path: Path) -> None:
    make_trial(tmp_path, "a", 0.5)
    for i in (1, 2):
        make_trial(tmp_path, f"f{i}", None, "failed", {"lr": 10.0 * i}, error=failed("the loss is nan\nlong story"))
    assert told(tmp_path)["failed"] == "2 trials failed (lr 10 and lr 20): the loss is nan."


def test_where_more_epochs_stopped_helping(tmp_path: Path) -> None:
    make_trial(tmp_path, "a", 0.5, values=[0.3, 0.498, 0.5, 0.49, 0.48])
    make_trial(tmp_path, "b", 0.4, parameters={"lr": 0.1})
    words = told(tmp_path)["epochs"]
    assert "In 1 of 2 finished trials the last epoch was the best, so more epochs may help: lr 0.1." in words
    make_trial(tmp_path, "alone/a", 0.5)
    assert told(tmp_path / "alone")["epochs"].startswith("In the finished trial the last epoch was the best")
    make_trial(tmp_path, "alone/b", 0.5, parameters={"lr": 0.1})
    assert told(tmp_path / "alone")["epochs"].startswith("In both finished trials the last epoch was the best")
    assert (
        "the best epoch came two or more before the last, and those after it brought nothing: lr 0.001 (epoch 3"
        in words
    )
    assert (
        "came within 0.50 points of its best at epoch 2 of 5; the 3 later epochs, 60 % of its training, brought 0.20"
        in words
    )


def test_nearly_as_good_for_less_time(tmp_path: Path) -> None:
    make_trial(tmp_path, "slow", 0.5, seconds=100.0)
    make_trial(tmp_path, "quick", 0.495, parameters={"lr": 0.1}, seconds=25.0)
    assert (
        "lr 0.1 comes within 0.50 points of the best trial in 25 s of training instead of 100 s (25 %"
        in told(tmp_path)["cost"]
    )


def test_caveats(tmp_path: Path) -> None:
    monitor = {"name": "val/accuracy", "mode": "max", "best": 0.5, "epoch": 5, "validation": "test"}
    make_trial(tmp_path, "a", 0.5, parameters={"lr": 0.1})
    path = make_trial(tmp_path, "b", 0.5) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"monitor": monitor}))
    make_trial(tmp_path, "c", None, "interrupted", {"lr": 0.2})
    found = told(tmp_path)
    assert found["biased"].startswith("1 of 3 trials validated on the test set")
    assert found["unfinished"].startswith("1 of 3 trials is without a result")
    assert "Equal to it is" in found["winner"]


def test_search_names_where_its_best_lie(tmp_path: Path) -> None:
    for i in range(30):
        values = {"lr": 0.001 * (i + 1), "weight_decay": 0.1 / (i + 1)}
        make_trial(tmp_path, f"t{i}", 0.3 + i / 100, parameters=values)
    words = told(tmp_path)["parameter"]
    assert words.startswith("The best 3 settings of 30 had lr 0.028 to 0.03.")

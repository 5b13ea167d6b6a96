"""What the sentences claim, and what they do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cv_lab.report.findings import findings
from cv_lab.report.sections import sections
from cv_lab.study.read import read_study
from tests.report.folders import add_predictions, add_test, failed, make_trial, units_of


def told(study: Path) -> dict[str, str]:
    """The findings of a study of one section, by kind; every trial that they name is there."""
    (section,) = sections(read_study(study).trials, [])
    found = findings(section)
    names = {trial.name for trial in section.trials}
    assert all(finding.trials and set(finding.trials) <= names for finding in found)
    return {kind: " ".join(f.text for f in found if f.kind == kind) for kind in dict.fromkeys(f.kind for f in found)}


def change_result(folder: Path, **fields: Any) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def make_grid(study: Path, cells: dict[tuple[str, float], list[float]]) -> None:
    for (optimizer, lr), scores in cells.items():
        for seed, best in enumerate(scores, 1):
            values = {"optimizer": optimizer, "lr": lr, "seed": seed}
            make_trial(study, f"lr={lr},optimizer={optimizer},seed={seed}", best, parameters=values)


def test_winner_is_ahead_by_a_test_paired_by_seed(tmp_path: Path) -> None:
    # Differences of 9, 10 and 11 points: t = 10 / (1 / sqrt(3)) = 17.32, df 2, p = 0.0033; 10 -+ 4.303 / sqrt(3)
    make_grid(tmp_path, {("adam", 0.1): [0.69, 0.71, 0.73], ("sgd", 0.1): [0.60, 0.61, 0.62]})
    assert told(tmp_path)["winner"] == (
        "Best of 2 settings is optimizer adam: val/accuracy 71.00 % ± 2.00 (mean ± standard deviation of 3 seeds), "
        "test/accuracy 70.00 %. It is ahead of optimizer sgd by 10.00 points [7.5, 12.5] over 3 seeds "
        "(t test paired by seed, p = 0.0033)."
    )


def test_what_is_not_told_apart_says_how_many_seeds_would(tmp_path: Path) -> None:
    make_grid(tmp_path, {("adam", 0.1): [0.69, 0.72, 0.70], ("sgd", 0.1): [0.68, 0.69, 0.71]})
    found = told(tmp_path)
    assert "winner" not in found
    # Differences of 1, 3 and -1 points: mean 1, deviation 2; d = 0.5 needs 34 seeds (Cohen, 1988)
    assert "Highest of 2 settings is optimizer adam" in found["highest"]
    assert (
        "It is not told apart from optimizer sgd: it is ahead of it by 1.00 points [-4.0, 6.0] over 3 seeds"
        in found["highest"]
    )
    assert "; about 34 seeds would tell." in found["highest"]


def test_settings_without_common_seeds_are_compared_as_independent(tmp_path: Path) -> None:
    for optimizer, seeds, mean in (("adam", (1, 2, 3), 0.7), ("sgd", (4, 5, 6), 0.5)):
        for seed in seeds:
            best = mean + (seed % 3) / 100
            make_trial(tmp_path, f"{optimizer}{seed}", best, parameters={"optimizer": optimizer, "seed": seed})
    # t = 0.2 / (0.01 * sqrt(2 / 3)) = 24.49 with the 2 degrees of freedom of either: scipy.stats.t.sf(24.49, 2) * 2
    assert "(Welch's t test, p = 0.0017)" in told(tmp_path)["winner"]


def test_exact_ties_are_no_differences(tmp_path: Path) -> None:
    cells = {("adam", 0.1): 0.3, ("adam", 0.01): 0.3, ("adam", 0.001): 0.2, ("sgd", 0.1): 0.2, ("sgd", 0.01): 0.3}
    make_grid(tmp_path, {key: [value] for key, value in cells.items()})
    found = told(tmp_path)
    words = " ".join(found.values())
    assert found["highest"].startswith("Highest of 5 settings is lr 0.01, optimizer adam")
    assert "Equal to it are lr 0.01, optimizer sgd and lr 0.1, optimizer adam." in words
    assert "Next come lr 0.001, optimizer adam and lr 0.1, optimizer sgd with 20.00 %" in words
    assert " 0.00 points" not in words
    assert "differs" not in words
    assert "for every optimizer tried" in found["parameter"]  # 0.01 is among the best of both
    assert "edge" not in found


def test_ties_over_seeds_are_equal_too(tmp_path: Path) -> None:
    make_grid(tmp_path, {("adam", 0.1): [0.3, 0.4], ("sgd", 0.1): [0.4, 0.3]})
    assert "Equal to it is optimizer" in told(tmp_path)["highest"]


def test_one_seed_is_called_one_seed(tmp_path: Path) -> None:
    make_grid(tmp_path, {("adam", 0.1): [0.7], ("sgd", 0.1): [0.5]})
    found = told(tmp_path)
    assert "winner" not in found
    assert "(one seed)" in found["highest"]
    assert "one seed each, so how much of it is chance is not known" in found["highest"]
    assert "with one seed, so nothing is known of other seeds" in found["seeds"]


def test_networks_of_one_seed_are_compared_on_the_same_images(tmp_path: Path) -> None:
    for name, wrong in (("adam", range(100)), ("sgd", range(70, 200))):
        folder = make_trial(tmp_path, name, 0.9 - len(wrong) / 1000, parameters={"optimizer": name})
        add_test(folder, [i % 2 for i in range(1000)], wrong)
    found = told(tmp_path)
    # 100 images only adam gets right, 70 only sgd: scipy.stats.binomtest(70, 170).pvalue is 0.02584
    assert "test/accuracy 90.00 % [88.2, 91.8] on 1,000 test images" in found["highest"]
    assert "It is ahead of optimizer sgd by 3.00 points [" in found["highest"]
    assert "on the same 1,000 test images, one seed each (McNemar's exact test, p = 0.026)" in found["highest"]
    assert "Another seed may turn this round." in found["highest"]
    assert "baseline" not in found


def test_images_in_another_order_are_not_compared(tmp_path: Path) -> None:
    for name, shift in (("adam", 0), ("sgd", 1)):
        folder = make_trial(tmp_path, name, 0.5 + shift / 10, parameters={"optimizer": name})
        add_test(folder, [(i + shift) % 2 for i in range(100)], range(10))
    assert "how much of it is chance is not known" in told(tmp_path)["highest"]


@pytest.mark.parametrize("with_images", [True, False])
def test_study_that_beats_no_baseline_says_so_first(tmp_path: Path, with_images: bool) -> None:
    for i, correct in enumerate((61, 55)):
        folder = make_trial(tmp_path, f"t{i}", correct / 100, parameters={"lr": 0.1 * (i + 1)})
        truth = [0] * 60 + [1] * 40
        if with_images:
            add_test(folder, truth, range(100 - correct))
        else:
            add_predictions(folder, [[correct - 20, 80 - correct], [20, 20]], ["cat", "dog"])
            metrics = json.loads((folder / "result.json").read_text())["metrics"]
            change_result(folder, images={"test": 100}, metrics=metrics | {"test/accuracy": correct / 100})
    (section,) = sections(read_study(tmp_path).trials, [])
    first = findings(section)[0].text
    assert first == "No setting is shown to beat always answering “cat”, which gives test/accuracy 60.00 %."


def test_lower_losses_win_and_are_no_per_cent(tmp_path: Path) -> None:
    for lr, best in ((0.1, 0.5), (0.01, 2.25)):
        folder = make_trial(tmp_path, f"lr={lr}", best, parameters={"lr": lr}, monitor="val/loss")
        monitor = {"name": "val/loss", "mode": "min", "best": best, "epoch": 1, "validation": "split"}
        change_result(folder, monitor=monitor)
    assert "Lowest of 2 settings is lr 0.1: val/loss 0.5 (one seed)" in told(tmp_path)["highest"]


def test_trials_that_are_judged_by_their_loss_have_the_baseline_of_their_accuracy(tmp_path: Path) -> None:
    for lr, wrong in ((0.1, 38), (0.01, 42)):
        folder = make_trial(tmp_path, f"lr={lr}", 2.0, parameters={"lr": lr}, monitor="val/loss")
        add_test(folder, [0] * 60 + [1] * 40, range(wrong))
        metrics = json.loads((folder / "result.json").read_text())["metrics"]
        monitor = {"name": "val/loss", "mode": "min", "best": 2.0, "epoch": 1, "validation": "split"}
        change_result(folder, monitor=monitor, units=units_of(metrics))
    words = "No setting is shown to beat always answering “cat”, which gives test/accuracy 60.00 %."
    assert told(tmp_path)["baseline"] == words


def test_labels_that_are_no_better_than_their_shares_say_so(tmp_path: Path) -> None:
    labels = np.zeros((20, 3), np.uint8)
    labels[:6, 0] = labels[:4, 1] = 1  # 30 and 20 %; the third label has no image, and no average precision
    for lr, best in ((0.1, 0.25), (0.01, 0.24)):
        folder = make_trial(tmp_path, f"lr={lr}", best, parameters={"lr": lr}, monitor="val/mAP")
        np.savez(folder / "test.npz", labels=labels, probabilities=np.full((20, 3), 0.5), loss=np.ones(20))
    # sklearn.metrics.average_precision_score(labels[:, :2], np.full((20, 2), 0.5)) is 0.25
    assert told(tmp_path)["baseline"] == "No setting beats always answering “the same”, which gives test/mAP 25.00 %."


def test_metric_that_is_no_share_is_no_per_cent(tmp_path: Path) -> None:
    for lr, best in ((0.1, 7.25), (0.01, 9.5)):
        folder = make_trial(tmp_path, f"lr={lr}", best, parameters={"lr": lr}, monitor="val/rmse")
        monitor = {"name": "val/rmse", "mode": "min", "best": best, "epoch": 1, "validation": "split"}
        units = {f"{split}/rmse": {"unit": "px", "mode": "min"} for split in ("train", "val", "test")}
        change_result(folder, monitor=monitor, units=units)
    words = " ".join(told(tmp_path).values())
    assert "val/rmse 7.25 px (one seed), test/rmse 7.24 px" in words
    assert "with 9.5 px, 2.25 px behind" in words
    assert "%" not in words


def test_interaction_is_claimed_from_the_whole_grid(tmp_path: Path) -> None:
    cells = {("adam", 0.01): 0.4, ("adam", 0.001): 0.7, ("sgd", 0.01): 0.65, ("sgd", 0.001): 0.5}
    noise = ([0, 1, 2, 0], [2, 0, 1, 1], [1, 2, 0, 1])
    make_grid(tmp_path, {k: [v + n[i] / 100 for n in noise] for i, (k, v) in enumerate(cells.items())})
    words = told(tmp_path)["interaction"]
    assert words.startswith("lr and optimizer interact: the best figures are at 0.001 for adam and 0.01 for sgd (")
    assert "test over the whole grid, 3 seeds, p = " in words


def test_no_interaction_is_claimed_within_the_spread(tmp_path: Path) -> None:
    cells = {("adam", 0.01): 0.4, ("adam", 0.001): 0.42, ("sgd", 0.01): 0.41, ("sgd", 0.001): 0.39}
    noise = ([0, 9, 2, 3], [2, 0, 6, 1], [5, 2, 0, 8])
    make_grid(tmp_path, {k: [v + n[i] / 100 for n in noise] for i, (k, v) in enumerate(cells.items())})
    found = told(tmp_path)
    assert not {"interaction", "effect", "winner"} & found.keys()
    assert "No interaction of optimizer and lr is shown (test over the whole grid, 3 seeds, p = " in found["parameter"]
    assert "No effect of lr is shown: 0.001 (" in found["parameter"]


def test_effect_of_a_parameter(tmp_path: Path) -> None:
    cells = {(o, lr): 0.4 + 0.2 * (lr == 0.1) for o in ("adam", "sgd") for lr in (0.1, 0.01)}
    noise = ([0, 1, 2, 0], [2, 0, 1, 1], [1, 2, 0, 1])
    make_grid(tmp_path, {k: [v + n[i] / 100 for n in noise] for i, (k, v) in enumerate(cells.items())})
    assert told(tmp_path)["effect"].startswith("lr matters: 0.1 (61.00 %) and 0.01 (40.83 %), means over all other ")


def test_missing_cells_leave_a_smaller_grid(tmp_path: Path) -> None:
    cells = {(o, lr): 0.4 + 0.2 * (lr == 0.1) for o in ("adam", "sgd", "rmsprop") for lr in (0.1, 0.01)}
    del cells["rmsprop", 0.01]
    noise = ([0, 1, 2, 0, 1], [2, 0, 1, 1, 0], [1, 2, 0, 1, 2])
    make_grid(tmp_path, {k: [v + n[i] / 100 for n in noise] for i, (k, v) in enumerate(cells.items())})
    found = told(tmp_path)
    assert "lr matters: 0.1 (" in found["effect"]
    assert "No effect of optimizer is shown: adam (" in found["parameter"]
    assert "rmsprop left out, where settings have no result" in found["parameter"]


def test_best_value_at_the_edge_of_what_was_tried(tmp_path: Path) -> None:
    for i, best in enumerate((0.6, 0.5, 0.4)):
        make_trial(tmp_path, f"t{i}", best, parameters={"lr": 10.0**-i})
    assert told(tmp_path)["edge"] == "The best lr, 1, is the largest tried: what lies beyond is not known."


def test_curves_of_a_trial_without_a_result_are_judged(tmp_path: Path) -> None:
    make_trial(tmp_path, "well", 0.5)
    losses = [2.0, 1.0, 3.0, 9.0, 1.2e10]
    make_trial(tmp_path, "bad", None, "interrupted", parameters={"lr": 0.1}, train_loss=losses)
    found = told(tmp_path)
    assert found["diverged"].startswith("1 of 2 trials diverged. lr 0.1: ")
    assert "rose from 1 in epoch 2 to 1.2e+10" in found["diverged"]
    assert found["trouble"] == "Of 2 trials, 1 diverged and 1 has no result."


def test_healthy_trials_raise_no_warning(tmp_path: Path) -> None:
    make_trial(tmp_path, "a", 0.5)
    make_trial(tmp_path, "b", 0.45, parameters={"lr": 0.1})
    kinds = {"diverged", "overfitted", "underfitted", "collapsed", "failed", "unfinished", "trouble", "losses"}
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
    kept = "; the kept checkpoint, of epoch 5, has this too"
    assert told(tmp_path)["collapsed"] == (
        f"3 of 3 trials collapsed. lr 97: since epoch 2, 97 % of all pixels are background{kept}. "
        f"lr 98: since epoch 2, 98 % of all pixels are background{kept}. Likewise lr 99. Try class weights."
    )


@pytest.mark.parametrize(
    ("epoch", "recovered", "expected"),
    [
        (2, None, "since epoch 2, 97 % are background; the kept checkpoint, of epoch 3, has this too."),
        (4, None, "since epoch 4, 97 % are background; the kept checkpoint, of epoch 3, is from before."),
        (2, 4, "from epoch 2 until it recovered in epoch 4, 97 % are background; the kept checkpoint, of epoch 3, is"),
        (2, 3, None),
    ],
)
def test_findings_say_whether_the_kept_checkpoint_has_them(
    tmp_path: Path, epoch: int, recovered: int | None, expected: str | None
) -> None:
    finding = {"kind": "collapse", "epoch": epoch, "message": "97 % are background", "recovered": recovered}
    make_trial(tmp_path, "a", 0.5, values=[0.1, 0.2, 0.5, 0.4, 0.3], findings=[finding])
    found = told(tmp_path)
    assert expected in found["collapsed"] if expected else "collapsed" not in found


def test_findings_of_an_unknown_kind_are_quoted(tmp_path: Path) -> None:
    finding = {"kind": "of_another_day", "epoch": 1, "message": "strange", "recovered": None}
    make_trial(tmp_path, "a", 0.5, findings=[finding])
    assert "since epoch 1, strange" in told(tmp_path)["told"]


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


def test_nearly_as_good_for_less_work(tmp_path: Path) -> None:
    make_trial(tmp_path, "slow", 0.5, parameters={"model": "large"}, seconds=100.0)
    make_trial(tmp_path, "quick", 0.495, parameters={"model": "small"}, seconds=25.0)
    assert (
        "model small comes within 0.50 points of the best setting in 25 s of training instead of 100 s (25 %"
        in told(tmp_path)["cost"]
    )


def test_times_of_equal_work_are_not_compared(tmp_path: Path) -> None:
    make_trial(tmp_path, "slow", 0.5, seconds=100.0)
    make_trial(tmp_path, "quick", 0.495, parameters={"lr": 0.1}, seconds=25.0)
    assert "cost" not in told(tmp_path)


def test_caveats(tmp_path: Path) -> None:
    monitor = {"name": "val/accuracy", "mode": "max", "best": 0.5, "epoch": 5, "validation": "test"}
    make_trial(tmp_path, "a", 0.5, parameters={"lr": 0.1})
    change_result(make_trial(tmp_path, "b", 0.5), monitor=monitor)
    make_trial(tmp_path, "c", None, "interrupted", {"lr": 0.2})
    found = told(tmp_path)
    assert found["biased"].startswith("1 of 2 finished trials validated on the test set, which so chose the epoch and")
    assert found["unfinished"].startswith("1 of 3 trials is without a result")
    assert "Equal to it is" in found["highest"]


def test_losses_of_different_functions_are_told(tmp_path: Path) -> None:
    for loss in ("focal", "cross_entropy"):
        make_trial(tmp_path, loss, 0.5, parameters={"loss": loss})
    assert told(tmp_path)["losses"].startswith("The trials train with 2 loss functions")


def test_trials_judged_by_different_losses_are_not_compared(tmp_path: Path) -> None:
    for loss, best in (("focal", 0.1), ("cross_entropy", 0.5)):
        make_trial(tmp_path, loss, best, parameters={"loss": loss}, monitor="val/loss")
    assert len(sections(read_study(tmp_path).trials, [])) == 2


def test_search_names_where_its_best_lie(tmp_path: Path) -> None:
    for i in range(30):
        values = {"lr": 0.001 * (i + 1), "weight_decay": 0.1 / (i + 1)}
        make_trial(tmp_path, f"t{i}", 0.3 + i / 100, parameters=values)
    words = told(tmp_path)["parameter"]
    assert words.startswith("The best 3 settings of 30 had lr 0.028 to 0.03.")


def test_no_sentence_says_ahead_by_nothing(tmp_path: Path) -> None:
    for name, best, wrong in (("adam", 0.9, range(10)), ("sgd", 0.8, range(5, 15))):
        add_test(make_trial(tmp_path, name, best, parameters={"optimizer": name}), [i % 2 for i in range(100)], wrong)
    words = told(tmp_path)["highest"]
    assert "not told apart from optimizer sgd: on the test it is level with it [" in words
    assert "0.00 points" not in words


def test_tiny_differences_are_no_zeros(tmp_path: Path) -> None:
    make_grid(tmp_path, {("adam", 0.1): [0.50001, 0.50003, 0.50002], ("sgd", 0.1): [0.5, 0.50001, 0.49999]})
    words = told(tmp_path)["highest"]
    assert "by less than 0.01 points [-0.00" in words


def test_correction_is_named_where_it_decides(tmp_path: Path) -> None:
    # Differences of adam and each other setting: 1, 2, 3, 2 and 1 points; t = 4.8107, df 4, p = 0.0086
    behind = [0.01, 0.02, 0.03, 0.02, 0.01]
    cells = {(f"o{i}", 0.1): [0.7 - b for b in behind] for i in range(9)}
    far = (
        ("sgd", 0.1),
        [0.4, 0.9, 0.4, 0.9, 0.6],
    )  # which chance explains, so that adam is ahead of all others but not this
    make_grid(tmp_path, {("adam", 0.1): [0.7] * 5, **dict([far]), **cells})
    # Ten comparisons, times eleven settings halved for the choice of the best: 0.0086 * 5.5 * 10 = 0.47
    assert "p = 0.0086, p = 0.47 corrected for the number of comparisons" in told(tmp_path)["highest"]

"""The trials of a study as a table on the terminal."""

from collections.abc import Sequence
from statistics import fmean, stdev

from cv_lab.study.record import is_alive
from cv_lab.study.trials import (
    Trial,
    is_loss,
    loss_columns,
    metric_name,
    rank_settings,
    seconds_per_percent,
    varying_parameters,
)

VALIDATED_ON_TEST = "Validated on the test set, which therefore picked the checkpoint too: no unbiased estimate."


def print_trial(trial: Trial) -> None:
    """Print the outcome of a single run on the terminal."""
    assert trial.result is not None
    result, shown = trial.result, figures([trial], [])
    name = metric_name(trial)
    print(
        f"best epoch {shown['epoch']} of {result['last']['epoch']}: val/{name} {shown[f'val/{name}']}, "
        f"test/{name} {shown[f'test/{name}']}, in {shown['seconds']} s ({shown['s per 1 %'] or '-'} s per 1 %)"
    )
    if "features s" in shown:
        print(
            f"features took {shown['features s']} s, once for all trials "
            f"({shown['s per 1 % with features'] or '-'} s per 1 % with them)"
        )
    if result["monitor"]["validation"] != "split":
        print(VALIDATED_ON_TEST)


def print_table(trials: Sequence[Trial]) -> None:
    """Print the trials of a study on the terminal, best first, and then why others did not end.

    Trials that differ in their seed alone share a row, with mean and sample standard deviation.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # in a file or a pipe nothing need be folded
    groups = rank_settings([trial for trial in trials if trial.result is not None])
    if groups:
        several = any(len(group) > 1 for group in groups)
        names = [name for name in varying_parameters(trials) if not (several and name == "seed")]
        rows, losses = [], loss_columns(trials)
        for group in groups:
            row = {name: str(group[0].record["parameters"].get(name, "")) for name in names}
            rows.append(row | ({"seeds": str(len(group))} if several else {}) | figures(group, losses))
        table = Table(box=None, header_style="bold")
        columns = dict.fromkeys(name for row in rows for name in row)
        for name in columns:
            if name in names:
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*(row.get(name, "") for name in columns))
        console.print(table)
        if any(trial.result["monitor"]["validation"] != "split" for trial in trials if trial.result):
            print(VALIDATED_ON_TEST)
    for trial in trials:
        status, error = trial.record["status"], trial.record.get("error")
        if status == "running":
            status = "running in another process" if is_alive(trial.record) else "killed"
        if status != "completed":
            print(f"{status}: {trial.folder}" + (f": {error['message']}" if error and status == "failed" else ""))


def figures(trials: Sequence[Trial], losses: Sequence[str]) -> dict[str, str]:
    """The figures of completed trials at their best epochs, by column, as text; of several, mean ± deviation.

    Args:
        trials: that share a row.
        losses: see :func:`loss_columns`.
    """
    each = [_numbers(trial, losses) for trial in trials]
    return {
        key: _text(key, [numbers[key] for numbers in each])
        for key in each[0]
        if all(key in numbers for numbers in each)
    }


def _numbers(trial: Trial, losses: Sequence[str]) -> dict[str, float | None]:
    assert trial.result is not None
    name, metrics, seconds = metric_name(trial), trial.result["metrics"], trial.result["seconds"]
    keys = (*losses, f"train/{name}", f"val/{name}", f"test/{name}")
    numbers: dict[str, float | None] = {key: metrics[key] for key in keys if metrics.get(key) is not None}
    numbers |= {
        "epoch": trial.result["monitor"]["epoch"],
        "seconds": seconds["fit"],
        "s per 1 %": seconds_per_percent(trial),
    }
    if "features" in seconds:
        numbers |= {
            "features s": seconds["features"],
            "s per 1 % with features": seconds_per_percent(trial, with_features=True),
        }
    return numbers


def _text(key: str, values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    factor, unit, digits = 1, "", ".2f"
    if is_loss(key):
        digits = ".4g"
    elif "/" in key:
        factor, unit = 100, " %"
    elif key == "epoch":
        digits = ".3g"
    elif key in ("seconds", "features s"):
        digits = ".1f"
    text = f"{factor * fmean(known):{digits}}"
    return text + (f" ± {factor * stdev(known):{digits}}" if len(known) > 1 else "") + unit

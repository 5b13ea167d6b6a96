"""Reasons to refuse trials of a multirun before the first of them runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_method


def refusals(context: Any, check: str, configs: Mapping[int, dict[str, Any]]) -> dict[int, str]:
    """Check the configs of trials in a process like theirs, which has imported what they need.

    Args:
        context: of multiprocessing.
        check: dotted name of a function that raises a ValueError for a config to be refused.
        configs: composed configs as plain values, by the trial's number.

    Returns:
        Messages by the numbers of the trials that are refused.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_check, args=(sender, check, dict(configs)))
    process.start()
    sender.close()
    try:
        problems: dict[int, str] = receiver.recv()
    except EOFError:  # it was killed; each trial checks its config again
        problems = {}
    process.join()
    return problems


def in_words(problems: Mapping[int, str], trials: int) -> str:
    """One line for each message, with the numbers of the trials that it concerns, out of `trials` in all."""
    numbers: dict[str, list[int]] = {}
    for number, message in problems.items():
        for line in message.splitlines():
            numbers.setdefault(line, []).append(number)
    return "\n".join(f"{_which(some, trials)}: {line}" for line, some in numbers.items())


def _which(numbers: Sequence[int], trials: int) -> str:
    if len(numbers) == trials:
        return "the trial" if trials == 1 else f"all {trials} trials"
    return ", ".join(f"#{number}" for number in numbers)


def _check(sender: Any, check: str, configs: Mapping[int, dict[str, Any]]) -> None:
    problems = {}
    for number, config in configs.items():
        try:
            get_method(check)(config)
        except ValueError as error:
            problems[number] = str(error)
    sender.send(problems)

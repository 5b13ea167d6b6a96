"""What trials of a multirun are refused for before the first of them runs."""

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
    answers = ask(context, check, configs)
    return {number: str(answer) for number, answer in answers.items() if isinstance(answer, ValueError)}


def ask(context: Any, function: str, configs: Mapping[int, dict[str, Any]]) -> dict[int, Any]:
    """Call a function for the configs of trials in a process like theirs, which has imported what they need.

    Args:
        context: of multiprocessing.
        function: dotted name.
        configs: composed configs as plain values, by the trial's number.

    Returns:
        What it returns for each, or the ValueError that it raises; nothing if the process is killed.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, dict(configs)))
    process.start()
    sender.close()
    try:
        answers: dict[int, Any] = receiver.recv()
    except EOFError:  # each trial does the same again
        answers = {}
    process.join()
    return answers


def in_words(problems: Mapping[int, str], trials: int) -> str:
    """One line for each message, with the numbers of the trials, of `trials` in all, that it is about."""
    numbers: dict[str, list[int]] = {}
    for number, message in problems.items():
        for line in message.splitlines():
            numbers.setdefault(line, []).append(number)
    return "\n".join(f"{_which(some, trials)}: {line}" for line, some in numbers.items())


def _which(numbers: Sequence[int], trials: int) -> str:
    if len(numbers) == trials:
        return "the trial" if trials == 1 else f"all {trials} trials"
    return ", ".join(f"#{number}" for number in numbers)


def _answer(sender: Any, function: str, configs: Mapping[int, dict[str, Any]]) -> None:
    answers: dict[int, Any] = {}
    for number, config in configs.items():
        try:
            answers[number] = get_method(function)(config)
        except ValueError as error:
            answers[number] = ValueError(str(error))  # which can be sent, whatever class of errors it was
    sender.send(answers)

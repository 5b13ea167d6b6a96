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
    answers = ask_each(context, check, configs)
    return {number: str(answer) for number, answer in answers.items() if isinstance(answer, ValueError)}


def ask_each(context: Any, function: str, configs: Mapping[int, dict[str, Any]]) -> dict[int, Any]:
    """Call a function for the configs of trials in a process like theirs, see :func:`ask`.

    Args:
        context: of multiprocessing.
        function: its dotted name.
        configs: composed configs as plain values, by the trial's number.

    Returns:
        What it returns for each, or the ValueError that it raises; nothing if the process was killed, since each trial
        does the same again.
    """
    return ask(context, f"{__name__}.answers_of", function, dict(configs)) or {}


def ask(context: Any, function: str, *arguments: Any) -> Any:
    """Call a function in a process like those of trials, which has imported what they need.

    Args:
        context: of multiprocessing.
        function: its dotted name.
        arguments: are pickled, as the answer is.

    Returns:
        The function's answer; None if the process was killed.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    process.join()
    return answer


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


def _answer(sender: Any, function: str, arguments: Sequence[Any]) -> None:
    sender.send(get_method(function)(*arguments))


def answers_of(function: str, configs: Mapping[int, dict[str, Any]]) -> dict[int, Any]:
    """What `function` returns for each config, or the ValueError that it raises, by the numbers of their trials."""
    answers: dict[int, Any] = {}
    for number, config in configs.items():
        try:
            answers[number] = get_method(function)(config)
        except ValueError as error:
            answers[number] = ValueError(str(error))  # which can be sent, whatever class of errors it was
    return answers

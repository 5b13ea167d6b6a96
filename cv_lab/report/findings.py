"""All that a study says, in plain sentences. Each claims no more than its trials show."""

from cv_lab.report.claims import answer, claims
from cv_lab.report.finding import Finding
from cv_lab.report.sections import Section
from cv_lab.report.training import costs, epochs
from cv_lab.report.trouble import caveats, summary, trouble
from cv_lab.study.effects import without_effect


def findings(section: Section) -> list[Finding]:
    """All findings of a section, what was asked first.

    The first ones, to the kind "chosen" or "biased", are the answer to what the study asks; they make up the first
    paragraph, which ends with a summary of what is wrong.
    """
    return [*answer(section), *summary(section), *details(section)]


def idle(section: Section) -> list[Finding]:
    """Parameters that changed nothing."""
    return [
        Finding("no effect", case.text, [trial.name for group in case.trials for trial in group])
        for case in without_effect(section.trials)
    ]


def opening(section: Section) -> list[Finding]:
    """The findings of the first paragraph."""
    return [*answer(section), *summary(section)]


def details(section: Section) -> list[Finding]:
    """All further findings."""
    return [*claims(section), *epochs(section), *costs(section), *trouble(section), *idle(section), *caveats(section)]

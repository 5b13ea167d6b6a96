"""All that a study says, in plain sentences. Each claims no more than its trials show."""

from cv_lab.report.claims import answer, claims
from cv_lab.report.finding import Finding
from cv_lab.report.sections import Section
from cv_lab.report.training import costs, epochs
from cv_lab.report.trouble import caveats, summary, trouble


def findings(section: Section) -> list[Finding]:
    """All findings of a section, what was asked first.

    The first ones, to the kind "chosen" or "biased", are the answer to what the study asks; they make up the first
    paragraph, which ends with a summary of what is wrong.
    """
    return [*answer(section), *summary(section), *details(section)]


def opening(section: Section) -> list[Finding]:
    """The findings of the first paragraph."""
    return [*answer(section), *summary(section)]


def details(section: Section) -> list[Finding]:
    """All further findings."""
    return [*claims(section), *epochs(section), *costs(section), *trouble(section), *caveats(section)]

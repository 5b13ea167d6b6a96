"""What cannot be used of a data set: counted, with examples, by kind."""

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from cv_lab.text import listing

log = logging.getLogger(__name__)
EXAMPLES = 5  # of each kind in a trial's record


class Unusable(ValueError):
    """A sample that cannot be used.

    Args:
        kind: in the plural, to be counted: "damaged images"; empty for what was counted already.
        example: the file or record, and what is wrong with it.
    """

    def __init__(self, kind: str, example: str) -> None:
        super().__init__(example)
        self.kind, self.example = kind, example


class Problems:
    """What is dropped of one source, and what is used though it may not be what its owner thinks.

    Args:
        source: the folder or file, for messages.
    """

    def __init__(self, source: Path | str) -> None:
        self.source = source
        self.dropped: dict[str, list[str]] = defaultdict(list)
        self.noted: dict[str, list[str]] = defaultdict(list)

    def drop(self, kind: str, example: str) -> None:
        if kind:
            self.dropped[kind].append(example)

    def note(self, kind: str, example: str) -> None:
        self.noted[kind].append(example)

    def settle(self, strict: bool) -> None:
        """Log what was dropped and noted.

        Raises:
            ValueError: instead, if `strict` and something was dropped.
        """
        if self.dropped:
            found = "; ".join(f"{len(some)} {kind} ({listing(some)})" for kind, some in self.dropped.items())
            if strict:
                raise ValueError(f"{self.source}: {found}. With data.strict=false they are dropped")
            log.warning("%s: dropped %s", self.source, found)
        for kind, some in self.noted.items():
            log.warning("%s: %s %s (%s)", self.source, len(some), kind, listing(some))

    def nothing_left(self, count: int) -> ValueError:
        """The error for a source of which none of `count` images can be used, with what was dropped."""
        reasons = [f"{kind}: {listing(examples, 2)}" for kind, examples in self.dropped.items()]
        return ValueError(f"{self.source}: none of its {count} images can be used: {'; '.join(reasons)}")

    def as_plain(self) -> list[dict[str, Any]]:
        """As plain values, for a trial's record."""
        both = (("dropped", self.dropped), ("noted", self.noted))
        return [
            {"source": str(self.source), "what": what, "kind": kind, "count": len(some), "examples": some[:EXAMPLES]}
            for what, kinds in both
            for kind, some in kinds.items()
        ]

    def files(self) -> list[dict[str, str]]:
        """Everything that was dropped and noted, for a table."""
        both = (("dropped", self.dropped), ("noted", self.noted))
        return [
            {"source": _encodable(str(self.source)), "what": what, "kind": kind, "example": _encodable(example)}
            for what, kinds in both
            for kind, some in kinds.items()
            for example in some
        ]


def _encodable(text: str) -> str:
    """`text` with escapes for what UTF-8 does not have: names of files may be any bytes."""
    return text.encode(errors="backslashreplace").decode()

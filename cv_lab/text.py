"""Wording that messages and reports share."""

from collections.abc import Sequence


def listing(items: Sequence[str], limit: int = 6) -> str:
    """ "a, b and c"; beyond `limit`, "a, b and 7 more". A list of one item more than `limit` is given whole."""
    items = [*items[:limit], f"{len(items) - limit} more"] if len(items) > limit + 1 else list(items)
    between = "; " if any("," in item for item in items) else ", "
    return " and ".join([between.join(items[:-1]), items[-1]] if len(items) > 1 else items)

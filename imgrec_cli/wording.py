"""Numbers and lists in the sentences that users read."""

from collections.abc import Iterable


def count(number: int, one: str, many: str = "") -> str:
    """1 image, 2,000 images; `many` where the plural is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def some(names: Iterable[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")

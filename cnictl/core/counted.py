"""Say how many of something there are, in singular or plural, and name the first of many."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 address`, `2 addresses`, `0 addresses`.

    `plural` is for a noun that does not take the usual ending at its end, such as `kind of packets`.
    """
    if count == 1:
        return f"1 {noun}"
    usual = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {plural or usual}"


def first_of(names: list[str], most: int) -> str:
    """Return at most `most` of the names, and how many there are more: `a, b and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")

"""Amounts in words, for a person."""


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there are two or more."""
    units = (("days", 86400), ("hours", 3600), ("minutes", 60))
    return next((f"{seconds / length:.1f} {unit}" for unit, length in units if seconds >= 2 * length), f"{seconds:.3g} s")

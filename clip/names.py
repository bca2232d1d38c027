"""Names that users type. Nothing here needs PyTorch."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """The end of a message about a name that is not among the choices, whatever its case; empty if none is near."""
    lower = {choice.lower(): choice for choice in choices}
    near = get_close_matches(str(name).lower(), lower, n=1)
    return f'; did you mean {lower[near[0]]}?' if near else ''


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """The message for a name that is not among the choices."""
    choices = list(choices)
    return f'unknown {what} {name!r}: choose from {", ".join(choices)}{did_you_mean(name, choices)}'

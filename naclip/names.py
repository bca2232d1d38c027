"""Names that users type."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """The end of a message about a name that is not among the choices; empty where none is near."""
    near = get_close_matches(str(name), list(choices), n=1)
    return f'; did you mean {near[0]}?' if near else ''


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """The message for a name that is not among the choices."""
    choices = list(choices)
    return f'unknown {what} {name!r}: choose from {", ".join(choices)}{did_you_mean(name, choices)}'

"""Names that users type."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """The message for a name that is not among the choices."""
    choices = list(choices)
    near = get_close_matches(str(name), choices, n=1)
    meant = f'; did you mean {near[0]}?' if near else ''
    return f'unknown {what} {name!r}: choose from {", ".join(choices)}{meant}'

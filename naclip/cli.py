"""What the command lines have in common."""

import argparse
import ast
import logging
import os
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from naclip.names import did_you_mean

METHODS_HINT = 'a name: see naclip ls methods; or FILE.py:NAME, one of your own'


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports a wrong option in one line, and what was probably meant."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """As argparse, but an unknown option is told before what is missing, which it may have been meant for."""
        known = [option for action in self._actions for option in action.option_strings]
        for text in takewhile(lambda text: text != '--', sys.argv[1:] if args is None else args):
            name = text.partition('=')[0]
            if name.startswith('--') and ' ' not in name and not any(option.startswith(name) for option in known):
                self.error(f'unrecognized arguments: {text}{did_you_mean(name, known)}')
        return super().parse_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """As argparse, with what was probably meant."""
        if action.choices is not None and value not in action.choices:
            names = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action, f'invalid choice: {value!r} (choose from {", ".join(names)}){did_you_mean(value, names)}'
            )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: {message} (see --help)\n')


def positive(text: str) -> int:
    """An argument's whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number above 0, got {text!r}')
    return int(text)


def add_form(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options for what a checkpoint's weights do not tell."""
    unknown = 'of a checkpoint file whose source cannot be told'
    parser.add_argument('--activation', choices=('quick_gelu', 'gelu'), help=unknown)
    parser.add_argument('--head-width', type=positive, metavar='N', help=f"of the image tower's heads; {unknown}")


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Give a parser the pictures that a tool goes through."""
    parser.add_argument('pictures', nargs='+', type=Path, metavar='PICTURES', help='pictures, or folders of pictures')


def one_line(error: Exception) -> str:
    """What an error says; one from a data-loading worker arrives with its traceback, and says it in the last line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix(f'{type(error).__name__}: ')


def answer(prog: str, run: Callable[[], object]) -> int:
    """Run a command; returns the exit code, its own if it is a number.

    What its user can mend costs one line; a traceback is only for who asks for it by NACLIP_TRACEBACK.
    """
    logging.basicConfig(format='%(levelname)s: %(message)s')
    try:
        code = run()
    except (ValueError, OSError, FloatingPointError) as error:
        if 'NACLIP_TRACEBACK' in os.environ:
            raise
        print(f'{prog}: {one_line(error)}', file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def parse_constants(items: Sequence[str]) -> dict[str, object]:
    """['lr=0.4', 'last_only=true', 'solver=svd'] -> {'lr': 0.4, 'last_only': True, 'solver': 'svd'}.

    Values are what Python makes of them, else texts; several with commas between them are a tuple.

    Raises:
        ValueError: an item without '='.
    """
    constants = {}
    for item in items:
        name, equals, text = item.partition('=')
        if not (name and equals):
            raise ValueError(f'--method-options expects KEY=VALUE, got {item!r}')
        try:
            constants[name] = ast.literal_eval(text.title() if text in ('true', 'false', 'none') else text)
        except (ValueError, SyntaxError):
            constants[name] = text
    return constants

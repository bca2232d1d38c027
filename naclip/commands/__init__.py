"""The command `naclip`: its subcommands, each handed over to a module of this room.

Each module has `main(argv, prog)`; scripts such as eval.py call the same functions.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import naclip
from naclip.names import unknown


@dataclass(frozen=True)
class Command:
    """A module with `main(argv, prog)`, and what it does, in a line."""

    module: str
    does: str


COMMANDS: Mapping[str, Command] = {
    'eval': Command('naclip.commands.evaluate', 'evaluate a segmentor on a benchmark, or on a folder of your own'),
    'segment': Command('naclip.commands.segment', 'segment pictures of your own with words of your own'),
    'score': Command('naclip.commands.score', 'score label maps on disk, whatever made them, on a benchmark'),
    'train': Command('naclip.commands.train', 'train PixelCLIP from pictures and masks without classes'),
    'report': Command('naclip.commands.report', 'tables, plots and a page of several runs'),
    'figure': Command('naclip.commands.figure', 'one figure of chosen pictures under several methods'),
    'check': Command('naclip.commands.check', "tell what is wrong with benchmarks' data"),
    'ls': Command('naclip.commands.listing', 'list methods, benchmarks, protocols or backbones'),
    'app': Command('naclip.commands.app', 'a page in the browser on which pictures are segmented'),
}
WIDTH = 10


def usage() -> str:
    """What `naclip --help` prints."""
    lines = [f'  {name:{WIDTH}}{command.does}' for name, command in COMMANDS.items()]
    return '\n'.join(['usage: naclip COMMAND [options]', '', *lines, '', 'naclip COMMAND --help has the options.'])


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help'):
        print(usage())
        return 0
    if name == '--version':
        print(f'naclip {naclip.__version__}')
        return 0
    if name not in COMMANDS:
        print(f'naclip: {unknown("command", name, COMMANDS)} (see --help)', file=sys.stderr)
        return 2
    # Only the module that is asked for: most load PyTorch.
    return importlib.import_module(COMMANDS[name].module).main(rest, f'naclip {name}')

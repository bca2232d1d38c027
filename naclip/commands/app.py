"""A page in the browser on which pictures are segmented with words, at the address that is printed."""

import argparse
from collections.abc import Sequence

from clip.releases import DTYPE_NAMES, HINT, available_models
from naclip.cli import OneLineParser, add_form, answer, positive


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description='A page in the browser on which pictures are segmented with words.')
    add = parser.add_argument
    add(
        '--backbone',
        default='ViT-B/16',
        help=f'chosen at first: one of {", ".join(available_models())}, or {HINT}; default: %(default)s',
    )
    add_form(parser)
    add('--host', default='127.0.0.1', help='0.0.0.0 serves whoever reaches this machine; default: %(default)s')
    add('--port', type=positive, default=7860, help='default: %(default)s')
    add('--device', help='cpu, cuda or cuda:INDEX; default: cuda where there is one')
    add('--dtype', choices=('auto', *DTYPE_NAMES), default='auto', help='default: float16 on CUDA, else float32')
    add('--max-upload-mb', type=positive, default=20, metavar='N', help='of a picture; default: %(default)s')
    add('--download-root', metavar='DIR', help='where known backbones are kept; default: ~/.cache/clip')
    return parser


def main(argv: Sequence[str] | None = None, prog: str = 'app.py') -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser(prog).parse_args(argv)
    from naclip.commands.server import serve  # takes seconds: only once the options are known to be good

    return answer(prog, lambda: serve(options))

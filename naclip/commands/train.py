"""Train PixelCLIP from pictures and masks without classes: CONFIG [--resume]"""

import argparse
import contextlib
import io
import os
import warnings
from collections.abc import Sequence

from naclip.cli import OneLineParser, answer


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add('config', help='a configs/train_*.py, or one of your own')
    add('--work-dir', metavar='DIR', help='where checkpoints, weights and logs go; default: work_dirs/<config>')
    add('--resume', action='store_true', help='go on from the last checkpoint in the work dir, if there is one')
    add('--data-root', metavar='DIR', help='the folder with the pictures and masks; default: the config')
    add('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='how processes were started')
    add('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    add('--amp', action='store_true', help='compute the towers and the head in float16 where that is safe')
    add('--cfg-options', nargs='+', default=[], metavar='K=V', help='override anything in the config')
    return parser


def main(argv: Sequence[str] | None = None, prog: str = 'train.py') -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser(prog).parse_args(argv)
    if options.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before MMEngine looks which devices there are
    # pycocotools is behind NumPy 2.
    warnings.filterwarnings('ignore', "__array__ implementation doesn't accept a copy keyword")
    with contextlib.redirect_stdout(io.StringIO()):
        from naclip.training.run import train  # takes seconds: only once the options are known to be good

    return answer(prog, lambda: train(options))

"""Train PixelCLIP from pictures and masks without classes: python tools/train.py configs/train_pixelclip_shapes.py"""

import argparse
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser().parse_args(argv)
    if options.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before MMEngine looks which devices there are
    logging.basicConfig(format='%(levelname)s: %(message)s')
    # pycocotools is behind NumPy 2.
    warnings.filterwarnings('ignore', "__array__ implementation doesn't accept a copy keyword")
    with contextlib.redirect_stdout(io.StringIO()):
        from naclip.training.run import train  # takes seconds: only once the options are known to be good

    try:
        train(options)
    except (ValueError, OSError, FloatingPointError) as error:
        if 'NACLIP_TRACEBACK' in os.environ:
            raise
        # A data-loading worker's error arrives with its traceback; the message is the last line.
        message = str(error).strip().splitlines()[-1].removeprefix(f'{type(error).__name__}: ')
        print(f'train.py: {message}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())

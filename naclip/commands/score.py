"""Score label maps on disk, whatever made them: --config configs/cfg_voc21.py --predictions DIR --method-name NAME

DIR has a PNG in class ids for each picture, of 8 or 16 bits and of the ground truth's size, under the picture's path
below the data set's folder or its name alone, as `eval.py --save-predictions` writes them. Pixels are counted as in an
evaluation, and the work directory gets a results.json that reports show beside others.
"""

import argparse
from collections.abc import Sequence

from naclip.cli import OneLineParser, answer, positive
from naclip.commands.imports import harness_imports


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--config', required=True, help='benchmark: a configs/cfg_*.py, or an MMSegmentation config of your own')
    add('--predictions', required=True, metavar='DIR', help='label maps: PNG files in class ids')
    add('--method-name', required=True, metavar='NAME', help='what reports call them')
    add('--name-path', metavar='FILE', help='class names: one class a line; for a config that names no vocabulary')
    add(
        '--data-root', metavar='DIR', help="the data set's folder, or one with the data/... layout; default: the config"
    )
    add('--limit', type=positive, metavar='N', help='score the first N pictures only')
    add('--work-dir', metavar='DIR', help='where results.json goes; default: work_dirs/scored/<name>/<config>')
    add('--save-confusion', action='store_true', help='write the confusion matrix to confusion.npy in the work dir')
    add('--per-image', action='store_true', help='write scores of every picture to per_image.csv in the work dir')
    return parser


def main(argv: Sequence[str] | None = None, prog: str = 'score.py') -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser(prog).parse_args(argv)
    with harness_imports():
        from naclip.harness.score import score  # takes seconds: only once the options are known to be good

    return answer(prog, lambda: score(options))

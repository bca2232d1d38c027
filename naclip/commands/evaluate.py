"""Evaluate a training-free open-vocabulary segmentor on a benchmark: --config configs/cfg_voc21.py"""

import argparse
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from clip import DTYPES, available_models
from clip.guides import available_guides
from clip.sources import HINT
from naclip.cli import OneLineParser, add_form, positive
from naclip.methods import method_names
from naclip.methods.last_block import ARCHITECTURES
from naclip.protocols import PROTOCOLS
from naclip.walk.attention import ATTENTION_FORMS

OWN = ('labels', 'label_suffix', 'reduce_zero_label', 'ignore_index', 'palette', 'background')  # beside --images


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description=__doc__)
    add = parser.add_argument
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument('--config', help='benchmark: a configs/cfg_*.py, or an MMSegmentation config of your own')
    data.add_argument('--images', metavar='DIR', help='a folder of pictures of your own, with --labels and --name-path')
    own = parser.add_argument_group('pictures of your own')
    own.add_argument('--labels', metavar='DIR', help='their label maps: files of the same names, at any depth')
    own.add_argument('--label-suffix', metavar='S', help="what label maps' names have after the picture's: _labels.png")
    own.add_argument('--reduce-zero-label', action='store_true', help='label 0 is no class, the first class is 1')
    own.add_argument('--ignore-index', type=int, metavar='N', help='ignored label; default: 255, or 65535 (16 bits)')
    own.add_argument('--palette', metavar='FILE', help="'R G B' a line, for label 0, 1, ...: label maps have colours")
    own.add_argument('--background', action='store_true', help='class 0 is background, and gets what is unsure (< 0.1)')
    add('--backbone', help=f'one of {", ".join(available_models())}, or {HINT}; default: the config')
    add_form(parser)
    add(
        '--method',
        metavar='NAME',
        help=f"{', '.join(method_names())}, or FILE.py:NAME for one of your own; default: the config's",
    )
    add('--method-options', nargs='+', default=[], metavar='K=V', help='constants of the method, e.g. lr=0.4 temp=0.25')
    add('--arch', choices=ARCHITECTURES, help='architecture of the last block; default: the method')
    add('--attn', choices=ATTENTION_FORMS, help='attention of the last block; default: the method')
    add('--std', type=float, help='standard deviation of the Gaussian, in patches; default: the method')
    add(
        '--guide',
        metavar='NAME',
        help=f'second tower: a checkpoint file, or one of {", ".join(available_guides())}; default: the method',
    )
    add(
        '--template-ranking',
        metavar='FILE',
        help='hear an expert for each class (FLOSS); tools/floss.py makes the file',
    )
    add('--regions', metavar='DIR', help='region masks, for methods that need them: <stem>.npz or .png a picture')
    add('--pamr', choices=('on', 'off'), help='refinement with PAMR; default: the method')
    add('--protocol', choices=PROTOCOLS, help='named settings to evaluate under; default: those of the method')
    add('--name-path', metavar='FILE', help='class names: one class a line, synonyms by commas; default: the protocol')
    add('--templates', metavar='FILE', help="prompt templates, '{}' for the name; default: the protocol")
    add(
        '--data-root', metavar='DIR', help="the data set's folder, or one with the data/... layout; default: the config"
    )
    add('--download-root', metavar='DIR', help='where known backbones are kept; default: ~/.cache/clip')
    add('--device', type=device, default='auto', help='auto, cpu, cuda or cuda:INDEX')
    add('--dtype', choices=('auto', *DTYPES), help='of the towers; auto, the default: float16 on CUDA, else float32')
    add('--limit', type=positive, metavar='N', help='evaluate the first N pictures only')
    add('--work-dir', metavar='DIR', help='where results.json and the logs go; default: work_dirs/<config>')
    add('--resume', action='store_true', help='go on where a killed run stopped; without it a run starts over')
    add('--save-confusion', action='store_true', help='write the confusion matrix to confusion.npy in the work dir')
    add('--per-image', action='store_true', help='write scores of every picture to per_image.csv in the work dir')
    add('--show-dir', metavar='DIR', help='write picture, ground truth and prediction side by side here')
    add('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='how processes were started')
    add('--cfg-options', nargs='+', default=[], metavar='K=V', help='override anything in the config; applied last')
    return parser


def device(text: str) -> str:
    kind, _, index = text.partition(':')
    if text not in ('auto', 'cpu', 'cuda') and not (kind == 'cuda' and index.isdecimal()):
        raise argparse.ArgumentTypeError(f'unknown device {text!r}: choose from auto, cpu, cuda, cuda:INDEX')
    return text


def check_own_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Make sure that options for pictures of one's own are all there, or none of them."""
    given = [f'--{key.replace("_", "-")}' for key in OWN if getattr(options, key) not in (None, False)]
    if options.images and not (options.labels and options.name_path):
        parser.error('--images needs --labels DIR and --name-path FILE')
    if options.images and options.data_root:
        parser.error('--images and --data-root exclude each other')
    if given and not options.images:
        parser.error(f'{", ".join(given)} belongs to --images')


def main(argv: Sequence[str] | None = None, prog: str = 'eval.py') -> int:
    """Run from the command line; returns the exit code."""
    parser = build_parser(prog)
    options = parser.parse_args(argv)
    check_own_options(parser, options)
    if options.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before MMEngine looks which devices there are
    logging.basicConfig(format='%(levelname)s: %(message)s')
    # The OpenMMLab packages remark on optional parts that nothing here uses.
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    with contextlib.redirect_stdout(io.StringIO()):
        from naclip.harness.evaluation import evaluate  # takes seconds: only once the options are known to be good

    try:
        if options.images and os.environ.get('RANK', '0') == '0':
            from naclip.commands.check import check_own

            if check_own(options):
                raise ValueError('the data are not in order, see above: nothing is evaluated')
        evaluate(options)
    except (ValueError, OSError) as error:
        if 'NACLIP_TRACEBACK' in os.environ:
            raise
        # A data-loading worker's error arrives with its traceback; the message is the last line.
        message = str(error).strip().splitlines()[-1].removeprefix(f'{type(error).__name__}: ')
        print(f'{prog}: {message}', file=sys.stderr)
        return 1
    return 0

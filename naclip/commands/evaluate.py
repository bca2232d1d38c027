"""Evaluate a training-free open-vocabulary segmentor on a benchmark: --config configs/cfg_voc21.py"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from clip.releases import DEVICES, DTYPE_NAMES, HINT, available_guides, available_models
from naclip.cli import METHODS_HINT, OneLineParser, add_form, answer, positive
from naclip.commands.imports import harness_imports
from naclip.names import unknown
from naclip.protocols import PROTOCOLS
from naclip.runs.plan import expand, expand_file, placed

OWN = ('labels', 'label_suffix', 'reduce_zero_label', 'ignore_index', 'palette', 'background')  # beside --images


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description=__doc__)
    add = parser.add_argument
    data = parser.add_mutually_exclusive_group()
    data.add_argument(
        '--config', nargs='+', help='benchmarks: a configs/cfg_*.py each, or an MMSegmentation config of your own'
    )
    data.add_argument('--images', metavar='DIR', help='a folder of pictures of your own, with --labels and --name-path')
    several = parser.add_argument_group(
        'several runs at once',
        'options that take several values stand for a run of each; what runs have in common is computed once',
    )
    several.add_argument('--sweep', nargs='+', default=[], metavar='K=V,V', help='values of a setting of the config, '
                         'as model.prob_thd=0,0.1, or of a constant of the method, as method.lr=0.2,0.4')  # fmt: skip
    several.add_argument('--plan', metavar='FILE', help='runs written out, .json or .yaml: a list of options each')
    several.add_argument('--dry-run', action='store_true', help='print the runs, and what they share; evaluate nothing')
    several.add_argument(
        '--memory', type=size, metavar='SIZE', help='for runs at once: 8G, 500M; default: half the free'
    )
    several.add_argument('--profile', action='store_true', help='print where the time goes, stage by stage')
    own = parser.add_argument_group('pictures of your own')
    own.add_argument('--labels', metavar='DIR', help='their label maps: files of the same names, at any depth')
    own.add_argument('--label-suffix', metavar='S', help="what label maps' names have after the picture's: _labels.png")
    own.add_argument('--reduce-zero-label', action='store_true', help='label 0 is no class, the first class is 1')
    own.add_argument('--ignore-index', type=int, metavar='N', help='ignored label; default: 255, or 65535 (16 bits)')
    own.add_argument('--palette', metavar='FILE', help="'R G B' a line, for label 0, 1, ...: label maps have colours")
    own.add_argument('--background', action='store_true', help='class 0 is background, and gets what is unsure (< 0.1)')
    add('--backbone', help=f'one of {", ".join(available_models())}, or {HINT}; default: the config')
    add_form(parser)
    add('--method', nargs='+', metavar='NAME', help=f"{METHODS_HINT}; default: the config's")
    add('--method-options', nargs='+', default=[], metavar='K=V', help='constants of the method, e.g. lr=0.4 temp=0.25')
    add('--arch', nargs='+', metavar='NAME', help='of the last block: see naclip ls architectures; default: the method')
    add('--attn', nargs='+', metavar='NAME', help='of the last block: see naclip ls attentions; default: the method')
    add('--std', nargs='+', type=float, help='standard deviation of the Gaussian, in patches; default: the method')
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
    add('--pamr', nargs='+', choices=('on', 'off'), help='refinement with PAMR; default: the method')
    add(
        '--protocol',
        nargs='+',
        choices=PROTOCOLS,
        help='named settings to evaluate under; default: those of the method',
    )
    add(
        '--name-path',
        nargs='+',
        metavar='FILE',
        help='class names: one class a line, synonyms by commas; default: the protocol',
    )
    add('--templates', nargs='+', metavar='FILE', help="prompt templates, '{}' for the name; default: the protocol")
    add(
        '--data-root', metavar='DIR', help="the data set's folder, or one with the data/... layout; default: the config"
    )
    add('--download-root', metavar='DIR', help='where known backbones are kept; default: ~/.cache/clip')
    add('--device', type=device, default='auto', help='auto, cpu, cuda or cuda:INDEX')
    add('--dtype', choices=('auto', *DTYPE_NAMES), help='of the towers; default: auto, float16 on CUDA, else float32')
    add('--limit', type=positive, metavar='N', help='evaluate the first N pictures only')
    add('--work-dir', metavar='DIR', help='where results.json and the logs go; default: work_dirs/<config>')
    add('--resume', action='store_true', help='go on where a killed run stopped; without it a run starts over')
    add('--save-confusion', action='store_true', help='write the confusion matrix to confusion.npy in the work dir')
    add('--per-image', action='store_true', help='write scores of every picture to per_image.csv in the work dir')
    add(
        '--save-predictions',
        action='store_true',
        help='write label maps to predictions/ in the work dir: tools/score.py',
    )
    add('--gallery', type=positive, metavar='N', help='keep N pictures, 64 at most, for reports and figures')
    add('--show-dir', metavar='DIR', help='write picture, ground truth and prediction side by side here')
    add('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='how processes were started')
    add('--cfg-options', nargs='+', default=[], metavar='K=V', help='override anything in the config; applied last')
    return parser


def device(text: str) -> str:
    kind, _, index = text.partition(':')
    if text not in ('auto', 'cpu', 'cuda') and not (kind == 'cuda' and index.isdecimal()):
        raise argparse.ArgumentTypeError(unknown('device', text, DEVICES))
    return text


def size(text: str) -> int:
    """An argument's bytes: '8G', '500M', '1.5G'."""
    units = {'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
    number, unit = text[:-1], text[-1:].upper()
    try:
        found = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(f'expected a size as 8G or 500M, got {text!r}')
    return found


def check_own_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Make sure that options for pictures of one's own are all there, or none of them."""
    given = [f'--{key.replace("_", "-")}' for key in OWN if getattr(options, key) not in (None, False)]
    if not (options.config or options.images):
        parser.error('one of the arguments --config --images --plan is required')
    if options.images and not (options.labels and options.name_path):
        parser.error('--images needs --labels DIR and --name-path FILE')
    if options.images and options.data_root:
        parser.error('--images and --data-root exclude each other')
    if given and not options.images:
        parser.error(f'{", ".join(given)} belongs to --images')


def runs_of(options: argparse.Namespace, argv: Sequence[str], prog: str) -> list[argparse.Namespace]:
    """The options of each run that a command line asks for.

    Raises:
        ValueError, FileNotFoundError: options that do not go together, or a plan file that cannot be used.
    """
    parser = build_parser(prog)

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    parser.error = refuse
    if options.plan:
        known = [action.option_strings[-1].removeprefix('--') for action in parser._actions if action.option_strings]
        runs = expand_file(Path(options.plan), parser.parse_args, argv, known)
    else:
        runs = expand(options)
    for run in runs:
        check_own_options(parser, run)
    return placed(runs)


def main(argv: Sequence[str] | None = None, prog: str = 'eval.py') -> int:
    """Run from the command line; returns the exit code."""
    parser = build_parser(prog)
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parser.parse_args(argv)
    try:
        plan = runs_of(options, argv, prog)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if options.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before MMEngine looks which devices there are
    with harness_imports():  # takes seconds: only once the options are known to be good
        from naclip.harness.evaluation import evaluate_plan, foresee

    def run() -> None:
        check_own_data(plan)
        if options.dry_run:
            print(foresee(plan, options.memory))
        else:
            evaluate_plan(plan, options.memory)

    return answer(prog, run)


def check_own_data(plan: Sequence[argparse.Namespace]) -> None:
    """Look over the pictures and label maps of one's own that runs name, once.

    Raises:
        ValueError: they are not in order; what is wrong has been told.
    """
    own = {(run.images, run.labels): run for run in plan if run.images}
    if own and os.environ.get('RANK', '0') == '0':
        from naclip.commands.check import check_own

        if any([check_own(run) for run in own.values()]):
            raise ValueError('the data are not in order, see above: nothing is evaluated')

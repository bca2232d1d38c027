"""One figure of chosen pictures, as several runs segmented them: RUNS... --pictures NAME... -o figure.pdf"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from naclip.cli import OneLineParser
from naclip.files import written_whole
from naclip.names import unknown


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add('work_dirs', type=Path, nargs='+', metavar='RUN', help='work directories of runs evaluated with --gallery')
    add(
        '--pictures',
        nargs='+',
        default=['differ:4'],
        metavar='NAME',
        help='pictures: names or parts of them, or differ, worst, best, with :3 for three; default: differ:4',
    )
    add('--methods', nargs='+', default=[], metavar='NAME', help='columns, in this order; default: all')
    add('--benchmark', metavar='NAME', help='pictures of this benchmark only')
    add('-o', '--out', type=Path, required=True, metavar='FILE', help='figure.pdf or figure.png')
    return parser


def make_figure(options: argparse.Namespace, prog: str) -> bool:
    """Write the figure; returns whether everything that was found could be used.

    Raises:
        ValueError, FileNotFoundError: runs, pictures or methods that are not there; says which there are.
    """
    # These take a second: only once the options are known to be good.
    from naclip.reports.figure import KINDS, choose_runs, draw, figure_file, with_runs
    from naclip.reports.gallery import find_chosen, read_pictures
    from naclip.reports.matrix import labels_of, lines_of
    from naclip.reports.runs import benchmarks_of, find_runs

    kind = options.out.suffix.removeprefix('.').lower()
    if kind not in KINDS:
        raise ValueError(f'{options.out}: expected a name that ends in .{" or .".join(KINDS)}')
    runs = find_runs(options.work_dirs)
    found = benchmarks_of(runs.runs)
    if options.benchmark and options.benchmark not in found:
        raise ValueError(unknown('benchmark', options.benchmark, found))
    chosen = [run for run in runs.runs if options.benchmark in (None, run.benchmark)]
    pictures, problems = read_pictures(chosen)
    for line in [*runs.left_out, *problems]:
        print(f'{prog}: left out: {line}', file=sys.stderr)
    if not pictures:
        raise ValueError('no run here kept pictures: evaluate with eval.py --gallery N')
    keeping = [run for run in chosen if any(shot.run is run for picture in pictures for shot in picture.shots)]
    columns = choose_runs(keeping, labels_of(lines_of(runs.runs)), options.methods)
    drawn = [run for members in columns.values() for run in members]
    seen = [picture for picture in (with_runs(picture, drawn) for picture in pictures) if picture.shots]
    rows = find_chosen(seen, options.pictures)
    content = figure_file(draw(rows, columns), kind)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(options.out) as temporary:
        temporary.write_bytes(content)
    print(f'{len(rows)} pictures, {len(columns)} methods  ->  {options.out}')
    return not (runs.left_out or problems)


def main(argv: Sequence[str] | None = None, prog: str = 'figure.py') -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser(prog).parse_args(argv)
    try:
        return 0 if make_figure(options, prog) else 1
    except (OSError, ValueError) as error:
        print(f'{prog}: {error}', file=sys.stderr)
        return 1

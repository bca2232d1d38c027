"""A report on several runs: tables, plots and one HTML page: WORK_DIR... [-o DIR] [--table]"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from naclip.cli import OneLineParser
from naclip.files import folder_written_whole

FILES = {'report.md', 'report.html', 'table.csv', 'table.tex', 'runs.csv', 'plots'}
PLOTS = ('.png', '.svg')


def check_target(folder: Path) -> None:
    """Make sure that nothing but an earlier report is replaced.

    Raises:
        ValueError: the folder is a file, or holds other things; names one.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'{folder} is not a folder')
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.exists() else []
    plots = folder / 'plots'
    if plots.is_dir():
        strangers += [f'plots/{path.name}' for path in plots.iterdir() if path.suffix not in PLOTS]
    if strangers:
        raise ValueError(f'{folder} holds {strangers[0]}, no part of a report: give a new or empty folder with -o')


def print_table(work_dirs: Sequence[Path], prog: str) -> bool:
    """Print the overview only; returns whether everything that was found is in it."""
    # These take seconds: only once the options are known to be good.
    from naclip.reports.page import mious_markdown
    from naclip.reports.runs import find_runs

    runs = find_runs(work_dirs)
    print(mious_markdown(runs))
    tell(runs.left_out, runs.notes, prog)
    return not runs.left_out


def tell(left_out: Sequence[str], notes: Sequence[str], prog: str) -> None:
    """One line for everything that is not in the report, or has a remark."""
    for line in [*(f'left out: {line}' for line in left_out), *notes]:
        print(f'{prog}: {line}', file=sys.stderr)


def report(work_dirs: Sequence[Path], out: Path, prog: str) -> bool:
    """Write the report; returns whether everything that was found is in it."""
    from naclip.reports.page import make_report
    from naclip.reports.runs import find_runs

    check_target(out)
    runs = find_runs(work_dirs)
    files, left_out, notes = make_report(runs, work_dirs)
    with folder_written_whole(out) as folder:
        (folder / 'plots').mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    tell(left_out, notes, prog)
    print(f'{len(runs.runs)} runs  ->  {out / "report.html"}')
    return not left_out


def main(argv: Sequence[str] | None = None, prog: str = 'report.py') -> int:
    parser: argparse.ArgumentParser = OneLineParser(prog=prog, description='Tables, plots and a page of several runs.')
    parser.add_argument('work_dirs', type=Path, nargs='+', metavar='WORK_DIR', help='work directories of runs')
    parser.add_argument('-o', '--out', type=Path, default=Path('report'), help='folder to write (default: %(default)s)')
    parser.add_argument('--table', action='store_true', help='print the table of mIoU in Markdown, and write nothing')
    options = parser.parse_args(argv)
    try:
        table, work_dirs = options.table, options.work_dirs
        whole = print_table(work_dirs, prog) if table else report(work_dirs, options.out, prog)
        return 0 if whole else 1
    except (OSError, ValueError) as error:
        print(f'{prog}: {error}', file=sys.stderr)
        return 1

"""Print results.json files beside the published numbers: compare_published.py WORK_DIR BENCHMARK..."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser

HEADER = ('benchmark', 'pictures', 'mIoU', 'published', 'difference', 'note')


def row(work_dir: Path, benchmark: str, without: Sequence[str] = ()) -> tuple[str, ...]:
    """One benchmark's line of the table; those in `without` count as not evaluated, whatever an earlier run left."""
    path = work_dir / benchmark / 'results.json'
    if benchmark in without or not path.is_file():
        return (benchmark, '-', '-', '-', '-', 'not evaluated')
    from naclip.reports.published import published_miou  # takes seconds: only once the options are known to be good

    record = json.loads(path.read_text(encoding='utf-8'))
    miou = record['metrics']['mIoU']
    published, note = published_miou(record)
    known = (f'{published:.2f}', f'{miou - published:+.2f}') if published is not None else ('-', '-')
    return (benchmark, str(record['images']), f'{miou:.2f}', *known, note)


def matrix(work_dir: Path, methods: Sequence[str], benchmarks: Sequence[str], without: Sequence[str]) -> list:
    """A row a method: its mIoU on each benchmark, with the difference from the published number, and their mean."""
    rows = [('method', *benchmarks, 'mean')]
    for method in methods:
        missing = [name.removeprefix(f'{method}/') for name in without if name.startswith(f'{method}/')]
        found = [row(work_dir / method, benchmark, missing) for benchmark in benchmarks]
        cells = [miou if difference == '-' else f'{miou} ({difference})' for _, _, miou, _, difference, _ in found]
        scores = [float(miou) for _, _, miou, *_ in found if miou != '-']
        mean = f'{sum(scores) / len(scores):.2f}' if scores else '-'
        told = mean if len(scores) in (0, len(benchmarks)) else f'{mean} (of {len(scores)})'
        rows.append((method, *cells, told))
    return rows


def main() -> None:
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add('work_dir', type=Path, help='has a folder a benchmark, with results.json, or a folder a method with such')
    add('benchmarks', nargs='+')
    add('--methods', nargs='+', default=[], metavar='FOLDER', help='a row for each; benchmarks are in their folders')
    add('--without', nargs='+', default=[], metavar='[METHOD/]BENCHMARK', help='was not evaluated this time')
    options = parser.parse_args()
    if options.methods:
        rows = matrix(options.work_dir, options.methods, options.benchmarks, options.without)
    else:
        rows = [HEADER, *(row(options.work_dir, benchmark, options.without) for benchmark in options.benchmarks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    scores = [float(cells[2]) for cells in rows[1:] if not options.methods and cells[2] != '-']
    if len(scores) == len(options.benchmarks):
        print(f'mean of the {len(scores)}: {sum(scores) / len(scores):.2f}')


if __name__ == '__main__':
    main()

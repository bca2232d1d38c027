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


def main() -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='has a folder a benchmark, with results.json')
    parser.add_argument('benchmarks', nargs='+')
    parser.add_argument('--without', nargs='+', default=[], metavar='BENCHMARK', help='was not evaluated this time')
    options = parser.parse_args()
    rows = [HEADER, *(row(options.work_dir, benchmark, options.without) for benchmark in options.benchmarks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    scores = [float(cells[2]) for cells in rows[1:] if cells[2] != '-']
    if len(scores) == len(options.benchmarks):
        print(f'mean of the {len(scores)}: {sum(scores) / len(scores):.2f}')


if __name__ == '__main__':
    main()

"""mIoU of several runs as one table, methods by benchmarks: table.py WORK_DIR..."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser


def run_name(record: dict) -> str:
    """What a run was: method, protocol, and what options changed of it."""
    changes = ''.join(f', {key} {value}' for key, value in record['changes'].items())
    limit = f', first {record["settings"]["limit"]}' if record['settings']['limit'] else ''
    return f'{record["method"]} ({record["protocol"]}{changes}{limit}; {Path(record["backbone"]).name})'


def markdown(records: list[dict]) -> str:
    """A Markdown table of mIoU in percent: a row a run name, a column a benchmark, in order of appearance."""
    benchmarks = list(dict.fromkeys(record['benchmark'] for record in records))
    scores: dict[str, dict[str, float | None]] = {}
    for record in records:
        scores.setdefault(run_name(record), {})[record['benchmark']] = record['metrics']['mIoU']
    lines = [' | '.join(['method (protocol; backbone)', *benchmarks]), ' | '.join(['---'] * (1 + len(benchmarks)))]
    for name, row in scores.items():
        values = (row.get(benchmark) for benchmark in benchmarks)
        lines.append(' | '.join([name, *('-' if value is None else f'{value:.2f}' for value in values)]))
    return '\n'.join(f'| {line} |' for line in lines)


def find_records(folders: list[Path]) -> list[dict]:
    """All results.json in and below the folders.

    Raises:
        FileNotFoundError: a folder has none.
    """
    records = []
    for folder in folders:
        files = sorted(folder.rglob('results.json'))
        if not files:
            raise FileNotFoundError(f'no results.json in or below {folder}: give the --work-dir of an evaluation')
        records += [json.loads(file.read_text(encoding='utf-8')) for file in files]
    return records


def main(argv: list[str] | None = None) -> int:
    parser: argparse.ArgumentParser = OneLineParser(description='mIoU of several runs as one Markdown table.')
    parser.add_argument('work_dirs', type=Path, nargs='+', metavar='WORK_DIR', help='work directories of runs')
    try:
        print(markdown(find_records(parser.parse_args(argv).work_dirs)))
    except (OSError, ValueError, KeyError) as error:
        print(f'table.py: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Tell what is wrong with benchmarks' data, and how to mend it.

    naclip check [BENCHMARK...] [--data-root DIR] [--labels N]

Looks for the data as an evaluation does: counts, pairs of pictures and label maps, files that cannot be read, sizes,
label values. Reads every picture and label map; `--labels N` reads N of each benchmark, evenly spread. The exit code
is 0 only if no benchmark has an error; a warning leaves it 0.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from naclip.cli import OneLineParser, positive
from naclip.commands.imports import harness_imports
from naclip.data.conversion import add_workers, run_parallel, run_script, spread
from naclip.files import REPOSITORY
from naclip.names import unknown

CONFIGS = REPOSITORY / 'configs'
# Those of test_all.sh.
EIGHT = ('voc21', 'context60', 'coco_object', 'voc20', 'city_scapes', 'context59', 'ade20k', 'coco_stuff164k')


def check(benchmarks: Sequence[str], data_root: str | None, sample: int | None, workers: int) -> int:
    """Print a block for each benchmark and a summary; returns the exit code."""
    with harness_imports():  # these take seconds: only once the options are known to be good
        from naclip.data import check as data_check
        from naclip.harness import configuration
        from naclip.harness.datasets import build_dataset, register_all
    register_all()

    reports, found = {}, {}
    for benchmark in benchmarks:
        config = configuration.load_config(CONFIGS / f'cfg_{benchmark}.py')
        part = config.test_dataloader.dataset
        place = configuration.likely_place(part, data_root)
        if 'class_file' in part:
            part.class_file = configuration.resolve_file(part.class_file)
        try:
            part.data_root = configuration.resolve_data_root(part, data_root, benchmark)
            part.pipeline = []
            dataset = build_dataset(config, benchmark)
        except (ValueError, OSError) as error:
            reports[benchmark] = data_check.report_missing(benchmark, str(place), error)
            continue
        pairs = data_check.find_pairs(dataset)
        chosen = [pair for pair in pairs if pair.present]
        found[benchmark] = dataset, pairs, spread(chosen, sample or len(chosen))

    # Benchmarks may share files, which are read once.
    jobs = list(dict.fromkeys((pair.picture, pair.label) for *_, chosen in found.values() for pair in chosen))
    scans = dict(zip(jobs, run_parallel(data_check.scan_pair, jobs, workers, 'pictures'), strict=True))
    for benchmark, (dataset, pairs, chosen) in found.items():
        own = [scans[pair.picture, pair.label] for pair in chosen]
        reports[benchmark] = data_check.judge(benchmark, dataset, pairs, own)
    ordered = [reports[benchmark] for benchmark in benchmarks]
    for report in ordered:
        print(data_check.format_report(report), end='\n\n')
    print(data_check.format_summary(ordered))
    return int(any(report.verdict == 'error' for report in ordered))


def check_own(options: argparse.Namespace) -> int:
    """Print what is wrong with pictures and label maps of one's own, as eval's options name them; returns the code.

    Raises:
        ValueError, OSError: they do not even go together in pairs; says which.
    """
    from naclip.data import check as data_check
    from naclip.data.own import read_palette, scan_own_pair
    from naclip.harness.datasets import build_dataset, register_all
    from naclip.harness.own import own_benchmark_name, own_config

    register_all()
    config = own_config(options)
    config.test_dataloader.dataset.pipeline = []
    benchmark = own_benchmark_name(options.images)
    dataset = build_dataset(config, benchmark)
    pairs = data_check.find_pairs(dataset)
    palette = read_palette(Path(options.palette)) if options.palette else None
    jobs = [(pair.picture, pair.label, palette, dataset.ignore_index) for pair in pairs]
    scans = run_parallel(scan_own_pair, jobs, min(os.cpu_count() or 1, -(-len(jobs) // 8)), 'checking')
    report = data_check.judge(benchmark, dataset, pairs, scans)
    print(data_check.format_report(report), flush=True)
    return int(report.verdict == 'error')


def parse_args(argv: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    known = sorted(path.stem.removeprefix('cfg_') for path in CONFIGS.glob('cfg_*.py'))
    parser = OneLineParser(prog=prog, description="Tell what is wrong with benchmarks' data, and how to mend it.")
    parser.add_argument(
        'benchmarks', nargs='*', metavar='BENCHMARK', help=f'of {", ".join(known)}; default: the eight of test_all.sh'
    )
    parser.add_argument(
        '--data-root', metavar='DIR', help="the data set's folder, or one with the data/... layout; default: the config"
    )
    parser.add_argument('--labels', type=positive, metavar='N', help='read N pairs of each benchmark, evenly spread')
    add_workers(parser)
    args = parser.parse_args(argv)
    args.benchmarks = list(dict.fromkeys(args.benchmarks)) or list(EIGHT)
    for name in args.benchmarks:
        if name not in known:
            parser.error(unknown('benchmark', name, known))
    return args


def main(argv: Sequence[str] | None = None, prog: str = 'check.py') -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv, prog)
    return run_script(
        prog, lambda: check(args.benchmarks, args.data_root, args.labels, args.workers), stopped='stopped'
    )

"""Plot a training run's loss and the mIoU on the way: tools/training_plot.py WORK_DIR --out training.png"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.reports.training import read_losses, read_scores


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add('work_dir', type=Path)
    add('--out', type=Path, required=True, metavar='FILE')
    add('--untrained', type=float, metavar='MIOU', help='mIoU before the first step')
    options = parser.parse_args(argv)
    from matplotlib.figure import Figure  # takes a second: only once the options are known to be good

    try:
        losses = read_losses(options.work_dir)
        points = read_scores(options.work_dir)
        if options.untrained is not None:
            points.insert(0, (0, options.untrained))
        figure = Figure(figsize=(7, 3), layout='constrained')
        left, right = figure.subplots(1, 2)
        left.plot(list(losses), list(losses.values()), color='tab:blue')
        left.set(xlabel='step', ylabel='loss')
        right.plot(*zip(*points, strict=True), color='tab:orange', marker='o') if points else None
        right.set(xlabel='step', ylabel='mIoU')
        figure.savefig(options.out, dpi=120)
    except (ValueError, OSError) as error:
        print(f'training_plot.py: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())

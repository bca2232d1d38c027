"""Plot a training run's loss and the mIoU on the way: tools/training_plot.py WORK_DIR --out training.png"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser


def read_losses(work_dir: Path) -> dict[int, float]:
    """The losses of all attempts of a run by step; of a step that ran twice, the last.

    Raises:
        FileNotFoundError: no log there.
    """
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'{work_dir} has no log of a training (*/vis_data/scalars.json)')
    lines = [json.loads(line) for log in logs for line in log.read_text(encoding='utf-8').splitlines()]
    return dict(sorted({line['step']: line['loss'] for line in lines if 'loss' in line}.items()))


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
        scores = options.work_dir / 'validation.json'
        points = (
            [(entry['step'], entry['mIoU']) for entry in json.loads(scores.read_text())] if scores.is_file() else []
        )
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

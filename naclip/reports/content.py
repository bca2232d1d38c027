"""What the page shows, as one JSON value: lines of the matrix, runs with their classes, pictures."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from naclip.reports.classes import class_tables, confused_pairs
from naclip.reports.gallery import (
    Picture,
    data_uri,
    interleaved,
    label_png,
    photo_jpeg,
    read_labels,
    read_photo,
    read_pictures,
    shrunk,
)
from naclip.reports.matrix import CONVENTIONS, MIXED, Line, labels_of
from naclip.reports.runs import (
    Run,
    benchmarks_of,
    compare,
    most_confused,
    read_confusion,
    read_worst_pictures,
    row_shares,
    short_backbone,
)
from naclip.reports.tables import LATEX, Cell, Grid, shown

PICTURE_BYTES = 12_000_000  # of pictures in a page: it has to open quickly
LONGEST = 320  # pixels of a picture in a page
LEGEND = 16  # classes beside a picture


def number(value: float | None, digits: int = 2) -> float | None:
    """A number as JSON has it; None for what is missing."""
    return None if value is None or math.isnan(value) else round(value, digits)


def run_grid(runs: Sequence[Run]) -> Grid:
    """One line a run: both mIoU, the published number, and the settings that identify it."""
    header = ['benchmark', 'method', 'protocol', 'changes', 'backbone', 'pictures', 'first', 'mIoU all classes']
    header += ['mIoU in ground truth', 'published', 'difference', 'note', 'dtype', 'device', 'seconds']
    header += ['seconds shared by', 'file']
    rows: list[list[Cell]] = []
    for run in runs:
        record, beside = run.record, compare(run)
        changes = ', '.join(f'{key} {value}' for key, value in record['changes'].items())
        row = [record['benchmark'], record['method'], record['protocol'], changes, record['backbone']]
        row += [run.get('images', int), run.get('settings.limit', int), run.miou(False), run.miou(True)]
        row += [beside.published, beside.difference, beside.note, run.get('settings.dtype', str)]
        row += [run.get('device.name', str), run.seconds, run.shared_by if run.shared_by > 1 else None, str(run.path)]
        rows.append(row)
    return Grid(header, rows)


def settings_rows(run: Run) -> list[list[str]]:
    """Everything that a run's numbers may depend on: settings, hashes of files, versions."""
    parts = {key: run.get(key) for key in ('settings', 'sha256', 'versions', 'git_commit', 'device', 'resumed')}
    rows = []
    for part, value in parts.items():
        items = {f'{part}: {key}': item for key, item in value.items()} if isinstance(value, Mapping) else {part: value}
        rows += [[key, item if isinstance(item, str) else json.dumps(item)] for key, item in items.items()]
    return rows


def about(run: Run) -> list[list[str]]:
    """A run in a few lines: numbers, the published one, classes, cost."""
    beside = compare(run)
    label, predicted = (sum(n > 0 for n in counts) for counts in (run.counts.label, run.counts.pred))
    record, images = run.record, run.get('images', int)
    rows = [[f'mIoU {text}', shown(run.miou(only))] for only, text in CONVENTIONS.items()]
    rows.append(['published', shown(beside.published) if beside.published is not None else 'no number'])
    if beside.difference is not None:
        rows.append(['difference from it', f'{beside.difference:+.2f}'])
    rows.append(['of the published number', beside.note])
    rows.append(['classes', f'{len(run.class_names)}, {label} in the ground truth, {predicted} predicted'])
    rows.append(['pictures', str(images) if images is not None else '-'])
    rows.append(['cost', cost_text(run)])
    rows.append(['changes', ', '.join(f'{key} {value}' for key, value in record['changes'].items()) or 'none'])
    return [*rows, ['backbone', record['backbone']], ['file', str(run.path)]]


def cost_text(run: Run) -> str:
    """Seconds a picture and the device, and whether they are this method's alone."""
    device = run.get('device.name', str) or 'an unknown device'
    seconds = run.get('seconds.per_image', (int, float))
    if seconds is None:
        return 'not recorded'
    if run.shared_by > 1:
        return f'{seconds:.3g} s a picture on {device}, for {run.shared_by} methods in one pass'
    return f'{seconds:.3g} s a picture on {device}'


def hint(run: Run) -> str:
    """The same in a line, for whoever points at a number."""
    beside = compare(run)
    published = f'published {beside.published:.2f}' if beside.published is not None else 'no published number'
    published += f' ({beside.difference:+.2f})' if beside.difference is not None else ''
    return f'{run.name} on {run.benchmark}: {published}; {len(run.class_names)} classes; {cost_text(run)}'


def line_content(line: Line, numbers: Mapping[int, int]) -> dict:
    """A row of the matrix: its runs by benchmark, as numbers in the list of runs."""
    runs = {benchmark: numbers[id(run)] for benchmark, run in line.runs.items()}
    keys = ('label', 'protocol', 'backbone', 'first')
    return {key: getattr(line, key) for key in keys} | {'runs': runs}


def run_content(run: Run, label: str) -> tuple[dict, list[str]]:
    """A run, with what its folder has beside results.json, and a line for each file that cannot be used."""
    counts, problems = run.counts, []
    content = {
        'benchmark': run.benchmark,
        'label': label,
        'title': f'{run.benchmark}: {run.name}',
        'protocol': run.record['protocol'],
        'backbone': short_backbone(run.record),
        'labelledOnly': run.labelled_only,
        'miou': [number(run.miou(only), 10) for only in (None, False, True)],
        'shown': [shown(run.miou(only)) for only in (None, False, True)],
        'hint': hint(run),
        'about': about(run),
        'settings': settings_rows(run),
        'iou': [number(value) for value in counts.iou()],
        'acc': [number(value) for value in counts.acc()],
        'labelled': list(counts.label),
        'predicted': list(counts.pred),
        'pairs': [],
        'confusion': None,
        'worst': None,
    }
    try:
        matrix = read_confusion(run)
        if matrix is not None:
            content['pairs'] = [[i, j, n, number(share)] for i, j, n, share in confused_pairs(matrix)]
            content['confusion'] = confusion_content(matrix)
    except (ValueError, OSError) as error:
        problems.append(str(error))
    try:
        worst = read_worst_pictures(run)
        content['worst'] = {'header': worst[0], 'rows': worst[1]} if worst else None
    except (ValueError, OSError) as error:
        problems.append(str(error))
    return content, problems


def confusion_content(matrix: np.ndarray) -> dict:
    """The most confused classes, and the shares of each one's pixels in % by prediction."""
    chosen = most_confused(matrix)
    shares = 100 * row_shares(matrix)[np.ix_(chosen, chosen)]
    return {'classes': chosen, 'shares': [[number(share) for share in row] for row in shares.tolist()]}


def picture_content(picture: Picture, numbers: Mapping[int, int]) -> dict:
    """A picture, its ground truth and every prediction as files inside the page.

    Raises:
        ValueError: a file is damaged.
    """
    classes, first = len(picture.names), picture.shots[0]
    truth = read_labels(first.paths[1], classes)

    def drawn(labels: np.ndarray) -> str:
        return data_uri(label_png(shrunk(labels, LONGEST), picture.palette), 'image/png')

    cells = np.array([cell for shot in picture.shots for cell in shot.kept.cells], np.int64).reshape(-1, 3)
    present = np.unique(cells[:, 0]).tolist() or []
    colours = ['#{:02x}{:02x}{:02x}'.format(*picture.palette[k].tolist()) for k in present[:LEGEND]]
    shots = []
    for shot in picture.shots:
        labels = read_labels(shot.paths[2], classes)
        if labels.shape != truth.shape:
            raise ValueError(f'{shot.paths[2]} has another size than its ground truth')
        shots.append({'run': numbers[id(shot.run)], 'miou': number(shot.miou), 'map': drawn(labels)})
    return {
        'benchmark': picture.benchmark,
        'image': picture.image,
        'photo': data_uri(photo_jpeg(read_photo(first.paths[0]), LONGEST), 'image/jpeg'),
        'truth': drawn(truth),
        'legend': [[picture.names[k], colour] for k, colour in zip(present, colours, strict=False)],
        'more': max(len(present) - LEGEND, 0),
        'shots': shots,
        'spread': number(picture.spread),
        'mean': number(picture.mean),
    }


def gallery_content(
    runs: Iterable[Run], numbers: Mapping[int, int], budget: int
) -> tuple[list[dict], list[str], list[str]]:
    """Pictures up to so many bytes, those that differ most, the worst and the best first.

    Beside them a line for everything that cannot be used, and remarks.
    """
    pictures, problems = read_pictures(runs)
    kept: list[dict] = []
    used = 0
    for picture in interleaved(pictures):
        try:
            content = picture_content(picture, numbers)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        used += len(content['photo']) + len(content['truth']) + sum(len(shot['map']) for shot in content['shots'])
        if used > budget:
            break
        kept.append(content)
    if used <= budget:
        return kept, problems, []
    remark = (
        f'{len(kept)} of {len(pictures)} kept pictures are in the page, those that differ most, the worst and the best '
        'of each benchmark first; tools/figure.py draws any'
    )
    return kept, problems, [remark]


def report_content(
    runs: Sequence[Run], lines: Sequence[Line], budget: int = PICTURE_BYTES
) -> tuple[dict, list[str], list[str]]:
    """The page's value, a line for everything that cannot be used, and remarks."""
    numbers = {id(run): i for i, run in enumerate(runs)}
    labels = labels_of(lines)
    problems: list[str] = []
    contents = []
    for run in runs:
        content, wrong = run_content(run, labels[id(run)])
        contents.append(content)
        problems += wrong
    tables = [
        {
            'benchmark': table.benchmark,
            'names': table.names,
            'order': table.order,
            'spread': [number(value) for value in table.spread.tolist()],
            'runs': [numbers[id(run)] for run in table.runs],
        }
        for table in class_tables(runs)
    ]
    for i, table in enumerate(tables):
        for run in table['runs']:
            contents[run]['classes'] = i
    pictures, wrong, remarks = gallery_content(runs, numbers, budget)
    problems += wrong
    content = {
        'benchmarks': benchmarks_of(runs),
        'conventions': [MIXED, CONVENTIONS[False], CONVENTIONS[True]],
        'latex': LATEX,
        'lines': [line_content(line, numbers) for line in lines],
        'runs': contents,
        'tables': tables,
        'pictures': pictures,
    }
    return content, problems, remarks

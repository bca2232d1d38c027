"""Whether a run starts, goes on where an earlier attempt stopped, or must not.

WORK_DIR/counts/ has the journal (naclip/runs/journal.py) and run.json: the run's identity, which is all that its counts
depend on, and under which versions and on which device each attempt counted.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from naclip.runs.journal import confusion_matrix, journal_files, pixel_counts, read_journal
from naclip.runs.results import CONFUSION, PER_IMAGE, RESULTS, PixelCounts, write_results

COUNTS, HEADER, LOCK = 'counts', 'run.json', 'lock'
OUTPUTS = (RESULTS, CONFUSION, PER_IMAGE)
LOCK_WAIT = 15  # seconds: the data-loading workers of a killed run hold its lock until they notice
PATHS = ('config', 'vocabulary', 'templates', 'regions')  # settings that name files: their content counts, see `sha256`
DATASET_PLACES = ('data_root', 'class_file', 'indices', 'test_mode')
PATH_CHANGES = ('name_path', 'templates', 'guide')
NOTES = ('versions', 'git_commit', 'device')  # of a record: noted, but no obstacle
FOLLOWING = ('changes.', 'picture_list')  # differ where something that says more differs, too
logger = logging.getLogger(__name__)


def run_identity(record: Mapping, dataset: Mapping, evaluator: Mapping, pictures: Sequence[str], classes: int) -> dict:
    """All that the counts of a run depend on, as JSON has it.

    `record` is what `naclip.harness.description.describe` tells, `dataset` and `evaluator` are the config's, `pictures`
    the keys of all pictures. File contents count, not where files are; how many processes share the work does not.
    """
    identity = {
        'benchmark': record['benchmark'],
        'settings': {k: v for k, v in record['settings'].items() if k not in (*PATHS, 'processes')},
        'sha256': record['sha256'],
        'method': record['method'],
        'protocol': record['protocol'],
        'changes': {k: v for k, v in record['changes'].items() if k not in PATH_CHANGES},
        'classes': classes,
        'pictures': len(pictures),
        'picture_list': hashlib.sha256(json.dumps(list(pictures)).encode()).hexdigest(),
        'dataset': {k: v for k, v in dataset.items() if k not in DATASET_PLACES},
        'evaluator': dict(evaluator),
    }
    return json.loads(json.dumps(identity, default=str))


def differences(was: object, now: object, key: str = '') -> list[str]:
    """What differs between two JSON values, as 'key was X, is Y'; keys within keys have dots."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*now, *was])
        return [d for k in keys for d in differences(was.get(k), now.get(k), f'{key}.{k}' if key else k)]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [d for i, pair in enumerate(zip(was, now, strict=True)) for d in differences(*pair, f'{key}.{i}')]
    return [] if was == now else [f'{key} was {_short(key, was)}, is {_short(key, now)}']


def _short(key: str, value: object) -> str:
    text = 'not set' if value is None else str(value)
    return text[:12] if key.startswith(('sha256.', 'picture_list')) else text


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run: its number from 1, and what attempts before it left.

    They counted the pictures `done`, `counts` in all, in so many seconds. `notes` has the versions, commit and device
    of every attempt, this one's last. `results` is the run's results.json, if that was all done before.
    """

    number: int
    done: Sequence[str]
    counts: PixelCounts
    seconds: float
    notes: Sequence[Mapping]
    results: Mapping | None


@contextlib.contextmanager
def alone(work_dir: Path) -> Iterator[None]:
    """Keep other runs out of a work directory; for one process of a run.

    Raises:
        ValueError: another run is in it.
    """
    (work_dir / COUNTS).mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(work_dir / COUNTS / LOCK).acquire(timeout=LOCK_WAIT)
    except Timeout:
        raise ValueError(f'another run is at work in {work_dir}: wait for it, or take another --work-dir') from None
    with held:
        yield


def begin(work_dir: Path, identity: Mapping, notes: Mapping, pictures: Sequence[str], resume: bool) -> Attempt:
    """Start a run over, or go on with it; leaves results only of a complete run that is to go on.

    Raises:
        ValueError: the run there is another one, or its header cannot be read; says what differs.
    """
    folder = work_dir / COUNTS
    header = {'identity': identity, 'attempts': []}
    if resume and (folder / HEADER).is_file():
        header = _read_header(folder / HEADER)
        found = differences(header['identity'], identity)
        found = [text for text in found if not text.startswith(FOLLOWING)] or found
        if found:
            more = f' and {len(found) - 3} more' if len(found) > 3 else ''
            raise ValueError(
                f'{work_dir} has a run under other settings: {"; ".join(found[:3])}{more}; '
                'take another --work-dir, or leave out --resume to start over'
            )
        _remove_rest(work_dir)
    else:
        discard(work_dir)
    counted, seconds = read_journal(folder)
    done = [key for key in pictures if key in counted]
    counts = pixel_counts(confusion_matrix((counted[key].cells for key in done), identity['classes']))
    results = _read_results(work_dir / RESULTS) if len(done) == len(pictures) else None
    if results is None:
        for name in OUTPUTS:
            (work_dir / name).unlink(missing_ok=True)
        header['attempts'].append(notes)
        write_results(folder / HEADER, header)
    return Attempt(len(header['attempts']), done, counts, seconds, header['attempts'], results)


def _read_results(path: Path) -> dict | None:
    try:
        return dict(json.loads(path.read_text(encoding='utf-8')))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # the results follow from the counts


def _read_header(path: Path) -> dict:
    try:
        header = json.loads(path.read_text(encoding='utf-8'))
        return {'identity': dict(header['identity']), 'attempts': list(header['attempts'])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is damaged ({error}); leave out --resume to start over') from error


def discard(work_dir: Path) -> None:
    """Remove a run from its work directory: results first, so that none is there without its counts' header."""
    folder = work_dir / COUNTS
    files = journal_files(folder).values()
    if files and not (work_dir / RESULTS).is_file():
        lines = sum(file.read_bytes().count(b'\n') for file in files)
        logger.warning('starting over: removing the %d counted pictures of an unfinished run in %s', lines, work_dir)
    for path in (*(work_dir / name for name in OUTPUTS), folder / HEADER, *files):
        path.unlink(missing_ok=True)
    _remove_rest(work_dir)


def _remove_rest(work_dir: Path) -> None:
    """Remove what a killed run was writing."""
    for target in (*(work_dir / name for name in OUTPUTS), work_dir / COUNTS / HEADER):
        for path in target.parent.glob(f'.{target.name}.*.tmp'):
            path.unlink()

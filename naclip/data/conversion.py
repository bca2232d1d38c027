"""What the scripts that prepare data share: many files in parallel, each written whole or kept as it was found."""

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from naclip.cli import positive
from naclip.files import write_png, written_whole

MAX_CHUNK = 32
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
PNG_END = b'\x00\x00\x00\x00IEND\xaeB`\x82'
DATA_ROOTS = {  # where the configs look
    'context': Path('data/VOCdevkit/VOC2010'),
    'city_scapes': Path('data/cityscapes'),
    'coco_object': Path('data/coco_object'),
    'coco_stuff164k': Path('data/coco_stuff164k'),
    'coco_stuff10k': Path('data/coco_stuff10k'),
    'ade847': Path('data/ADE20K_2021_17_01'),
}


class InputError(ValueError):
    """Something is wrong with what was given; the message is one line for the user."""


def is_whole_png(path: Path) -> bool:
    """Whether the file is there up to PNG's end mark, which one cut off by a full disk or a crash lacks."""
    try:
        with path.open('rb') as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except FileNotFoundError:
        return False
    except OSError:
        if path.is_file() and path.stat().st_size < len(PNG_END):
            return False
        raise


def read_label(path: Path) -> np.ndarray:
    """Read a label map of 8 bits, uint8 (height, width). Raises InputError when the file holds none."""
    content = io.BytesIO(path.read_bytes())
    try:
        with Image.open(content) as picture:
            label = np.asarray(picture)
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise InputError(f'{path} cannot be decoded: unpack it again') from error
    if label.dtype != np.uint8 or label.ndim != 2:
        raise InputError(f'{path} is not a single-channel 8-bit label map: unpack it again')
    return label


def read_mat(path: Path, field: str) -> np.ndarray:
    """Read the label map in a field of a MATLAB file, int64 (height, width). Raises InputError when it has none."""
    from scipy.io import loadmat  # takes a while, and few scripts need it

    content = io.BytesIO(path.read_bytes())
    try:
        label = loadmat(content, variable_names=[field]).get(field)
    except Exception as error:  # SciPy raises many kinds for a broken file
        raise InputError(f'{path} cannot be read as a MATLAB file: unpack it again') from error
    # MATLAB's own numbers are floats.
    if label is None or label.ndim != 2 or not label.size or label.dtype.kind not in 'uif' or np.any(label % 1):
        raise InputError(f'{path} holds no label map {field}: unpack it again')
    return label.astype(np.int64)


def read_lines(path: Path, mend: str) -> list[str]:
    """The lines of a list of files, without repeats and empty ones. Raises InputError when there is none."""
    lines = path.read_text(encoding='utf-8').split() if path.is_file() else []
    if not lines:
        raise InputError(f'{path} is missing or empty: {mend}')
    return list(dict.fromkeys(lines))


def write_label(label: np.ndarray, target: Path) -> None:
    """Write a label map, uint8 (height, width), as PNG, whole or not at all."""
    write_png(Image.fromarray(label), target)


def is_whole_tif(path: Path) -> bool:
    """Whether the file is there and can be decoded to its end."""
    try:
        with warnings.catch_warnings(action='error'), Image.open(path) as file:
            file.load()
    except (OSError, SyntaxError, ValueError, UserWarning):  # whatever it is: it is written again
        return False
    return True


def write_wide_label(label: np.ndarray, target: Path) -> None:
    """Write a label map, uint16 (height, width), as TIFF, whole or not at all."""
    with written_whole(target) as temporary:
        Image.fromarray(label).save(temporary, format='TIFF', compression='tiff_deflate')


def make_folder(folder: Path, suffix: str) -> None:
    """Make a folder for outputs that end so, and remove the temporary files of a run that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, suffix)


def remove_leftovers(folder: Path, suffix: str) -> None:
    """Remove the temporary files of a run that was killed."""
    for path in folder.glob(f'.*{suffix}.*.tmp'):
        path.unlink(missing_ok=True)


def spread(items: Sequence, count: int) -> list:
    """At most `count` items, evenly spread, with the first and the last."""
    indices = np.unique(np.linspace(0, len(items) - 1, min(len(items), count)).round().astype(int))
    return [items[i] for i in indices]


def picture_names(folder: Path) -> list[str]:
    """Names of the pictures in a folder, sorted; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith('.jpg') and entry.name[0] != '.')


def check_pictures(source: Path, target: Path) -> None:
    """Raise InputError when the pictures' folder can not be linked to."""
    if not picture_names(source) and not picture_names(target):
        raise InputError(f'{source} holds no pictures (*.jpg): put them there, or leave the split out with --splits')
    if not source.is_dir() or (target.exists() and target.samefile(source)):
        return
    if target.is_symlink():
        raise InputError(f'{target} is a link to {os.readlink(target)}, not to {source}: remove it')
    if target.exists() and not target.is_dir():
        raise InputError(f'{target} is in the way of the pictures: remove it')


def link_folder(source: Path, target: Path) -> str:
    """Make all pictures of a folder appear under target at the least cost; returns what was done."""
    if not source.is_dir() or (target.exists() and target.samefile(source)):
        return 'pictures already in place'
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError, NotImplementedError):
        if target.is_dir():
            target.rmdir()  # fails, as it should, where pictures are in it
        target.symlink_to(source.absolute(), target_is_directory=True)
        return f'pictures linked (folder link to {source.absolute()})'
    return link_files(source, target, picture_names(source))


def link_files(source: Path, target: Path, names: Iterable[str]) -> str:
    """Make some pictures of a folder appear under target, by hard links or copies; returns what was done."""
    make_folder(target, '.jpg')
    present = set(picture_names(target))
    names = list(names)
    missing = [name for name in names if name not in present]
    linked = copied = 0
    for name in tqdm(missing, desc=f'pictures of {target.name}', unit='file', disable=not missing):
        try:
            os.link((source / name).resolve(), target / name)  # resolved, as a link's own target may be relative
            linked += 1
        except (OSError, NotImplementedError):
            with written_whole(target / name) as temporary:
                shutil.copyfile(source / name, temporary)
            copied += 1
    return f'pictures linked: {linked} by hard links, {copied} copied, {len(present)} already in place'


def start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def run_chunk(function: Callable, chunk: Sequence[tuple]) -> list:
    """What a function returns for some jobs, each the tuple of its arguments."""
    return [function(*job) for job in chunk]


def run_parallel(function: Callable, jobs: Sequence[tuple], workers: int, unit: str = 'labels') -> list[Any]:
    """Call a function for each job, a tuple of its arguments, in processes and under a progress bar.

    Returns what the calls returned, in the order of the jobs. The first error ends the run.
    """
    if not jobs:
        return []
    size = max(1, min(MAX_CHUNK, len(jobs) // (workers * 8)))
    chunks = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    results = []
    if workers == 1:
        with tqdm(total=len(jobs), desc=unit, unit='file') as bar:
            for chunk in chunks:
                results += run_chunk(function, chunk)
                bar.update(len(chunk))
        return results
    executor = ProcessPoolExecutor(min(workers, len(chunks)), initializer=start_worker)
    try:
        futures = [executor.submit(run_chunk, function, chunk) for chunk in chunks]
        with tqdm(total=len(jobs), desc=unit, unit='file') as bar:
            for future in as_completed(futures):
                bar.update(len(future.result()))
        return [result for future in futures for result in future.result()]
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def convert_files(
    convert: Callable,
    jobs: Sequence[tuple],
    suffix: str,
    workers: int,
    is_whole: Callable[[Path], bool] = is_whole_png,
) -> str:
    """Make the label maps that are not there yet, or not whole; returns what was done.

    A job is the arguments of `convert`, the last of them the file that it writes, whose name ends in `suffix`.
    """
    pending = [job for job in jobs if not is_whole(job[-1])]
    for folder in {job[-1].parent for job in jobs}:
        make_folder(folder, suffix)
    run_parallel(convert, pending, workers)
    return f'{len(pending)} converted, {len(jobs) - len(pending)} skipped (already there)'


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the option for the number of processes."""
    parser.add_argument(
        *('-j', '--workers'),
        type=positive,
        default=os.cpu_count() or 1,
        help='processes (default: one per CPU, %(default)s)',
    )


def next_steps(root: Path, default: Path, *benchmarks: str) -> str:
    """The commands that follow a conversion to `root`."""
    place = '' if root.absolute() == default.absolute() else f' --data-root {root}'
    evaluate = '; '.join(f'python eval.py --config configs/cfg_{name}.py{place}' for name in benchmarks)
    return f'next: python datasets/check.py {" ".join(benchmarks)}{place}; then {evaluate}'


def run_script(name: str, action: Callable[[], int | None], stopped: str = 'stopped: run again to go on') -> int:
    """Run a script's work; returns its exit code (0 for None). What the user did wrong becomes one line."""
    try:
        return action() or 0
    except (InputError, OSError) as error:
        print(f'{name}: {error}', file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(f'{name}: a worker was killed, maybe for memory: run again, with fewer --workers', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130

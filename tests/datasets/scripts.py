"""What the tests of the scripts in datasets/ share."""

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
from mmseg.registry import DATASETS
from PIL import Image

import naclip.harness.datasets  # noqa: F401  registers the data sets
from tests.conftest import ROOT


def load_script(name: str) -> ModuleType:
    """A script of datasets/ as a module; by path, as another package may be called datasets."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'datasets' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where worker processes look for its functions
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run a script as a process."""
    command = [sys.executable, str(ROOT / 'datasets' / f'{name}.py'), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=cwd)


def run_and_kill(name: str, *arguments: object, folder: Path, pattern: str) -> int:
    """Run a script and kill it with SIGKILL at its first output; returns how many outputs it left."""
    command = [sys.executable, str(ROOT / 'datasets' / f'{name}.py'), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=600)  # returns when the workers, who share the pipes, have ended too
    assert process.returncode == -signal.SIGKILL
    return len(list(folder.glob(pattern)))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones, too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def read(path: Path) -> np.ndarray:
    """The values of an 8-bit grey PNG."""
    with Image.open(path) as file:
        assert file.mode == 'L'
        return np.asarray(file)


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an array of 8 bits without compression."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, format='PNG', compress_level=0)


def write_picture(path: Path, size: tuple[int, int]) -> None:
    """Write a black picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size[::-1]).save(path)


def loaded_labels(kind: str, root: Path, **parts: object) -> dict[str, np.ndarray]:
    """What MMSegmentation's class reads as the labels of each picture."""
    pipeline = [dict(type='mmseg.LoadAnnotations')]
    dataset = DATASETS.build(dict(type=kind, data_root=str(root), pipeline=pipeline, test_mode=True, **parts))
    return {Path(dataset.get_data_info(i)['img_path']).stem: dataset[i]['gt_seg_map'] for i in range(len(dataset))}


def check_refused(result: subprocess.CompletedProcess, name: str, *words: object, code: int = 1) -> None:
    """Make sure that a script stopped with one line."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(f'{name}.py: ')
    for word in words:
        assert str(word) in lines[0]

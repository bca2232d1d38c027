"""Print how much of each room the tests ran, of coverage's data file: python tools/rooms_covered.py

`make test COVERAGE=1` runs the tests and then this. The exit code is 1 if a room is below what is asked.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser, answer

ROOT = Path(__file__).parents[1]
# Files that tests on a machine without a GPU cannot run -> why; they count in no room.
EXCEPTIONS: Mapping[str, str] = {
    'naclip/walk/pamr_triton.py': 'kernels run on a GPU, or in an interpreter that coverage cannot look into',
}


class Covered(NamedTuple):
    """Lines of a room that can run, and those of them that did."""

    lines: int
    run: int

    @property
    def percent(self) -> float:
        return 100 * self.run / self.lines if self.lines else 100.0


def room_of(file: str) -> str:
    """The room that a file belongs to: clip, or a folder of naclip, or 'naclip' for its modules at the top."""
    parts = Path(file).parts
    return '/'.join(parts[: min(len(parts) - 1, 2)])


def by_room(files: Mapping[str, Covered]) -> dict[str, Covered]:
    """Sums over the files of each room, by the paths of files from the repository's folder."""
    rooms: dict[str, Covered] = {}
    for file in sorted(set(files) - set(EXCEPTIONS)):
        before = rooms.get(room_of(file), Covered(0, 0))
        rooms[room_of(file)] = Covered(*(a + b for a, b in zip(before, files[file], strict=True)))
    return rooms


def read(data_file: Path) -> dict[str, Covered]:
    """What was covered of each file, from coverage's data file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: coverage is not installed, or the file has nothing of this repository.
    """
    if not data_file.exists():
        raise FileNotFoundError(f'{data_file} does not exist: run `make test COVERAGE=1`, which writes it')
    try:
        from coverage import Coverage
        from coverage.exceptions import CoverageException
    except ImportError:
        raise ValueError("coverage is not installed: pip install 'naclip[dev]'") from None
    coverage = Coverage(data_file=data_file, config_file=ROOT / 'pyproject.toml')
    try:
        coverage.load()
        found = {}
        for file in coverage.get_data().measured_files():
            path = Path(file)
            if path.is_relative_to(ROOT) and path.exists():
                _, lines, _, missing, _ = coverage.analysis2(file)
                found[path.relative_to(ROOT).as_posix()] = Covered(len(lines), len(lines) - len(missing))
    except CoverageException as error:
        raise ValueError(f'{data_file}: {error}') from None
    if not found:
        raise ValueError(f'{data_file} has nothing of {ROOT}: run `make test COVERAGE=1` here')
    return found


def report(files: Mapping[str, Covered], least: float, say: Callable[[str], None] = print) -> int:
    """Say what was covered, room by room, and of rooms below `least` percent their files; returns the exit code."""
    rooms = by_room(files)
    below = [room for room, covered in rooms.items() if covered.percent < least]
    for room, covered in rooms.items():
        say(f'{room:20} {covered.run:6} of {covered.lines:6} lines {covered.percent:6.1f} %')
    for file, why in EXCEPTIONS.items():
        say(f'not counted: {file} ({why})')
    for room in below:
        say(f'{room} is below {least:g} %:')
        for file, covered in files.items():
            if room_of(file) == room and file not in EXCEPTIONS and covered.percent < least:
                say(f'  {file} {covered.percent:.1f} %')
    return 1 if below else 0


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument('data_file', nargs='?', type=Path, default=ROOT / '.coverage', help='default: .coverage')
    parser.add_argument('--least', type=float, default=90.0, metavar='PERCENT', help='of a room; default: %(default)s')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser().parse_args(argv)
    return answer('rooms_covered.py', lambda: report(read(options.data_file), options.least))


if __name__ == '__main__':
    sys.exit(main())

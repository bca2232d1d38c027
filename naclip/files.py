"""Files that are there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

PACKAGE = Path(__file__).parent
# What comes with the toolkit, configs/ and prompts/, is found from here: an installed package has it inside, a checkout
# beside the package.
REPOSITORY = PACKAGE if (PACKAGE / 'configs').is_dir() else PACKAGE.parent

# First bytes of a JPEG or PNG -> what the whole file ends with.
ENDINGS = {b'\xff\xd8': b'\xff\xd9', b'\x89P': b'IEND'}


def read_whole(path: Path) -> bytes:
    """Read a file.

    Raises:
        ValueError: a JPEG or PNG that is cut short (some decoders fill the rest with grey).
    """
    content = path.read_bytes()
    if ENDINGS.get(content[:2], b'') not in content[-(1 << 16) :]:
        raise ValueError('the file is cut short')
    return content


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a temporary path beside the target that takes the target's name only when all went well."""
    temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_png(image: Image.Image, path: Path) -> None:
    """Write a PNG that is there whole or not at all."""
    with written_whole(path) as temporary:
        image.save(temporary, format='PNG')


@contextlib.contextmanager
def folder_written_whole(target: Path) -> Iterator[Path]:
    """Give a new, empty folder beside the target that takes the target's place only when all went well.

    What was in the target is gone then. A failure leaves the target as it was.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (target.with_name(f'.{target.name}.{os.getpid()}.{kind}') for kind in ('tmp', 'old'))
    try:
        temporary.mkdir()
        yield temporary
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)

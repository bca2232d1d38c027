"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

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

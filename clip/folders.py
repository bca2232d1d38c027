"""Folders for what is kept between runs; where a home cannot be written to, among temporary files."""

import contextlib
import errno
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# What an error's number is where a folder cannot be made or written to.
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT)
Made = TypeVar('Made')
logger = logging.getLogger(__name__)


def spare_folder() -> Path:
    """A folder among temporary files that is this user's alone: the same each time, where nobody else took its name."""
    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f'naclip-{user}'
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if stat.S_ISDIR(about.st_mode) and about.st_uid == user and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return folder
    return Path(tempfile.mkdtemp(prefix='naclip-'))


def with_spare(make: Callable[[Path], Made], folder: Path) -> Made:
    """What `make` makes in a folder; where nobody can write there, what it makes in the spare folder, with a remark.

    What is in the folder already is for `make` to find: it may be there for reading alone.
    """
    try:
        return make(folder.expanduser())
    except RuntimeError as error:  # there is no home
        if folder.parts[:1] != ('~',):
            raise
        reason: Exception = error
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        reason = error
    spare = spare_folder()
    logger.warning('%s cannot be written to (%s): using %s', folder, reason, spare)
    return make(spare)

"""Files that are replaced whole or not at all: keys, the lock, what a function overwrites."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put ``content`` in the place of the file at ``path``, or make it; its folder must be there.

    Whoever reads meanwhile sees the old content or the new, and so does the next start of a machine that
    stopped in between.

    Args:
        path: the file.
        content: all of it.
        mode: its permissions; for its owner alone by default.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise

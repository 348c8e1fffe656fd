"""Files under one folder, and nothing outside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..kernel.errors import FunctionDenied, ModelRetry
from ..kernel.functions import Context, function
from ..kernel.whole_file import replace_file

#: What decides about plugins and policy is not for an assistant to write.
_PROTECTED = frozenset({"kernloom.toml", "kernloom.lock"})
#: May hold our settings too, in ``[tool.kernloom]``.
_SHARED = "pyproject.toml"
#: A longer line, in bytes, counts as several, so that no file can fill the memory.
_LONGEST_LINE = 1 << 20
#: Opened so that a link put there meanwhile is not followed, and a pipe does not block.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class FilesSettings(BaseModel):
    """``[plugins.files]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The folder that may be worked in; the project's by default, else the working directory.
    root: Path | None = None
    #: Whether names that begin with a dot can be seen: ``.env``, ``.git`` …
    hidden: bool = False
    #: The most bytes of one file that are read or written.
    max_bytes: int = Field(default=1_000_000, gt=0)
    #: The most entries or matches that are given back.
    max_results: int = Field(default=500, gt=0)
    #: The most files that a search looks into.
    max_searched: int = Field(default=5000, gt=0)


class Files:
    """List, read, search and write text files under one folder.

    Args:
        root: the folder; wins over the settings.
        settings: limits; see :class:`FilesSettings`.
    """

    name = "files"
    Settings = FilesSettings

    def __init__(self, root: str | Path | None = None, *, settings: FilesSettings | None = None) -> None:
        self._settings = settings or FilesSettings()
        chosen = root if root is not None else self._settings.root
        self._root = Path(chosen).expanduser().resolve() if chosen is not None else None

    @function(name="list", effects={"read"})
    def entries(self, context: Context, folder: str = ".", pattern: str = "*") -> list[str]:
        """Files and folders in a folder, by name; folders end with a slash.

        Args:
            folder: The folder, relative to the root.
            pattern: Which names, with * and ?, e.g. "*.md".
        """
        where = self._existing(folder, context)
        if not where.is_dir():
            raise ModelRetry(f"{folder!r} is a file.", hint="Read it with files.read.")
        names = sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in os.scandir(where)
            if self._visible(entry.name) and fnmatchcase(entry.name, pattern)
        )
        kept = self._settings.max_results
        return names if len(names) <= kept else [*names[:kept], f"… and {len(names) - kept} more"]

    @function(effects={"read"})
    def read(self, path: str, context: Context, start_line: int = 1, end_line: int | None = None) -> str:
        """The text of a file, or some of its lines.

        Args:
            path: The file, relative to the root.
            start_line: The first line wanted, counted from 1.
            end_line: The last line wanted; the end of the file by default.
        """
        if start_line < 1 or (end_line is not None and end_line < start_line):
            raise ModelRetry(f"Lines {start_line} to {end_line} are no range.", hint="Lines count from 1.")
        file = self._existing(path, context)
        whole = start_line == 1 and end_line is None
        kept: list[str] = []
        size = 0
        number = 0
        for number, line in enumerate(_lines(file, path), start=1):
            if number < start_line:
                continue
            if end_line is not None and number > end_line:
                break
            size += len(line)
            if size > self._settings.max_bytes:
                raise ModelRetry(
                    f"{path!r} is too much to read at once: more than {self._settings.max_bytes} bytes.",
                    hint="Read fewer lines with start_line and end_line, or use files.search.",
                )
            kept.append(line.decode("utf-8", "replace"))
        if not kept and not whole:
            raise ModelRetry(f"{path!r} has {number} lines; there is no line {start_line}.")
        return "".join(kept)

    @function(effects={"read"})
    def search(
        self, text: str, context: Context, folder: str = ".", pattern: str = "*"
    ) -> list[dict[str, str | int]]:
        """The lines that contain a text, in all files of a folder and the folders in it.

        Letters match whether capital or small. Links are not followed.

        Args:
            text: What to look for, literally.
            folder: Where to look, relative to the root.
            pattern: In which files, with * and ?, e.g. "*.md".
        """
        if not text.strip():
            raise ModelRetry("text is empty.", hint="Say what to look for.")
        wanted = text.casefold()
        root = self._root_for(context)
        found: list[dict[str, str | int]] = []
        for file in self._walk(self._existing(folder, context), pattern):
            shown = file.relative_to(root).as_posix()
            try:
                for number, line in enumerate(_lines(file, shown), start=1):
                    said = line.decode("utf-8", "replace")
                    if wanted in said.casefold():
                        found.append({"path": shown, "line": number, "text": said.strip()[:300]})
                        if len(found) >= self._settings.max_results:
                            return found
            except ModelRetry:
                continue  # no text file, or gone meanwhile
        return found

    @function(effects={"write"})
    def write(
        self,
        path: str,
        text: str,
        context: Context,
        mode: Literal["create", "overwrite", "append"] = "create",
    ) -> str:
        """Write a text file; folders on the way are made. Gives back its path.

        Args:
            path: The file, relative to the root.
            text: What to write.
            mode: "create" refuses if the file exists, "overwrite" replaces it, "append" adds to its end.
        """
        content = text.encode("utf-8", "replace")
        if len(content) > self._settings.max_bytes:
            raise ModelRetry(f"The text has {len(content)} bytes; {self._settings.max_bytes} are allowed.")
        file = self._inside(path, context)
        if os.path.exists(file) and not os.path.isfile(file):
            raise ModelRetry(f"{path!r} is no file that can be written.")
        if _decides(file, text):
            raise FunctionDenied(
                f"{path!r} decides what is trusted, so it is not for an assistant to write."
            )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ModelRetry(f"The folder of {path!r} cannot be made: {exc.strerror or exc}.") from exc
        try:
            _WRITERS[mode](file, content)
        except FileExistsError as exc:
            raise ModelRetry(
                f"{path!r} exists already.", hint='Use mode "overwrite" or "append", or another name.'
            ) from exc
        except OSError as exc:
            raise ModelRetry(f"{path!r} cannot be written: {exc.strerror or exc}.") from exc
        return file.relative_to(self._root_for(context)).as_posix()

    def _root_for(self, context: Context) -> Path:
        if self._root is not None:
            return self._root
        return (context.kernel.config.project or Path.cwd()).resolve()

    def _existing(self, path: str, context: Context) -> Path:
        file = self._inside(path, context)
        if not os.path.exists(file):  # which, unlike Path.exists, also answers for names too long to be
            raise ModelRetry(f"There is no {path[:200]!r}.", hint="See what there is with files.list.")
        return file

    def _inside(self, path: str, context: Context) -> Path:
        """The real path, links followed; it lies under the root."""
        root = self._root_for(context)
        refused = FunctionDenied(
            f"{path[:200]!r} is not under the folder that files may be used in.",
            hint="Give a path relative to it, such as docs/a.md.",
        )
        windows = PureWindowsPath(path)
        if "\0" in path or PurePosixPath(path).is_absolute() or windows.drive or windows.root:
            raise refused
        if os.name == "nt" and ":" in path:  # another stream of a file
            raise refused
        try:
            real = (root / path).resolve()
        except (OSError, RuntimeError, ValueError) as exc:  # links in a circle, names too long
            raise refused from exc
        if not real.is_relative_to(root):
            raise refused
        if not all(self._visible(part) for part in real.relative_to(root).parts):
            raise FunctionDenied(
                f"{path!r} is hidden.", hint="A person can allow it: [plugins.files] hidden = true."
            )
        return real

    def _visible(self, name: str) -> bool:
        return self._settings.hidden or not name.startswith(".")

    def _walk(self, folder: Path, pattern: str) -> Iterator[Path]:
        if folder.is_file():
            yield folder
            return
        looked = 0
        for parent, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if self._visible(name))
            for name in sorted(names):
                file = Path(parent, name)
                if not self._visible(name) or not fnmatchcase(name, pattern) or file.is_symlink():
                    continue  # where the system cannot refuse to follow a link, nobody else would
                looked += 1
                if looked > self._settings.max_searched:
                    return
                yield file


def _decides(file: Path, text: str) -> bool:
    """Whether a file is one that decides about plugins and policy, or would become one by ``text``."""
    name = file.name.casefold().rstrip(". ")  # Windows leaves both off
    if name != _SHARED:
        return name in _PROTECTED
    try:
        before = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        before = ""
    return "kernloom" in before + text


def _lines(file: Path, path: str) -> Iterator[bytes]:
    """The lines of a text file.

    Raises:
        ModelRetry: it is no ordinary file, is not text, or cannot be read.
    """
    try:
        handle = os.open(file, os.O_RDONLY | _FLAGS)
    except OSError as exc:
        raise ModelRetry(f"{path!r} cannot be read: {exc.strerror or exc}.") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ModelRetry(f"{path!r} is no ordinary file.", hint="List a folder with files.list.")
    with os.fdopen(handle, "rb") as content:
        if b"\0" in content.peek(4096)[:4096]:
            raise ModelRetry(f"{path!r} is not text.")
        while line := content.readline(_LONGEST_LINE):
            yield line


def _create(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666), "wb") as out:
        out.write(content)


def _append(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FLAGS, 0o666), "wb") as out:
        out.write(content)


def _overwrite(file: Path, content: bytes) -> None:
    """Whole or not at all; the file's permissions stay."""
    if not file.exists():
        _create(file, content)
        return
    replace_file(file, content, mode=stat.S_IMODE(file.stat().st_mode))


_WRITERS = {"create": _create, "append": _append, "overwrite": _overwrite}

"""Files in, text out: plain text, Markdown, HTML and PDF.

A file that cannot be read as text is *skipped with a reason*; nothing a file contains can stop a walk.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..kernel.errors import MissingExtraError, UsageError
from .blocks import document_title
from .html import read_html

#: Larger files are skipped: 32 MiB is some ten thousand pages of text.
MAX_BYTES = 32 * 2**20
#: What may come out of a file of that size, in characters; a PDF can unpack to much more than it weighs.
MAX_CHARACTERS = 64 * 2**20

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Loaded(NamedTuple):
    """The text to store, and what the file calls itself."""

    text: str
    title: str


class Skipped(NamedTuple):
    """A file that was not read, and why."""

    path: str
    reason: str


class Found(NamedTuple):
    """A file of a walk; ``relative`` is its path below the folder, with ``/``."""

    path: Path
    relative: str
    #: Set when it is not to be read.
    reason: str = ""
    #: A folder that could not be looked into: nobody knows what is in it.
    unlisted: bool = False


class UnreadableFileError(UsageError):
    """This file gives no text. ``gone`` tells that it holds none, as against being out of reach for now."""

    code = "memory.unreadable_file"

    def __init__(self, reason: str, *, gone: bool = True) -> None:
        super().__init__(reason)
        self.gone = gone


def load(path: Path, *, max_bytes: int = MAX_BYTES) -> Loaded:
    """The text of one file; of an unknown kind it is read as plain text.

    Raises:
        UnreadableFileError: it is empty, binary, encrypted, too large, or cannot be opened.
        MissingExtraError: its kind needs the extra ``loaders``.
    """
    return parse(read_bytes(path, max_bytes=max_bytes), path)


def read_bytes(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most ``max_bytes``.

    Raises:
        UnreadableFileError: it is not one, or cannot be opened.
    """
    try:
        # Asked before opening: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableFileError("not a regular file")
        with path.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or str(exc)
        raise UnreadableFileError(
            f"cannot be read: {why}", gone=isinstance(exc, FileNotFoundError)
        ) from exc
    if len(raw) > max_bytes:
        raise UnreadableFileError(f"larger than {max_bytes / 2**20:.0f} MiB")
    return raw


def parse(raw: bytes, path: Path) -> Loaded:
    """The text in a file's content; ``path`` tells its kind and, if nothing else does, its title."""
    text, title = _KINDS.get(path.suffix.lower(), _read_text)(raw)
    text = well_formed(text)
    if not text.strip():
        raise UnreadableFileError("empty" if not raw.strip() else "holds no text")
    if len(text) > MAX_CHARACTERS:
        raise UnreadableFileError(f"more than {MAX_CHARACTERS:,} characters of text")
    return Loaded(text, well_formed(title) or path.stem.replace("-", " ").replace("_", " "))


def decode(raw: bytes) -> str:
    """Bytes as text: by their byte order mark, as UTF-8, else as Windows-1252 or Latin-1.

    Newlines become ``\\n``, so that spans and lines are what an editor shows.

    Raises:
        UnreadableFileError: these bytes are not text.
    """
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), None)
    try:
        if encoding is not None:
            return _newlines(raw.decode(encoding))
        if b"\0" in raw:
            raise UnreadableFileError("binary")
        text = _first_that_fits(raw, "utf-8", "cp1252", "latin-1")
    except UnicodeDecodeError as exc:
        raise UnreadableFileError(f"not valid {encoding}") from exc
    if _looks_binary(text):
        raise UnreadableFileError("binary")
    return _newlines(text)


def well_formed(text: str) -> str:
    """``text`` with lone surrogates, which no database or network can carry, replaced one for one."""
    return text if text.isascii() else text.translate(_SURROGATES)


def walk(folder: Path) -> list[Found]:
    """The files under ``folder``, ordered by path. Hidden ones are left out; links are not followed."""
    found: list[Found] = []

    def unlisted(exc: OSError) -> None:
        path = Path(exc.filename or folder)
        reason = f"cannot be listed: {exc.strerror}"
        found.append(Found(path, path.relative_to(folder).as_posix(), reason, unlisted=True))

    for at, folders, files in os.walk(folder, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(at, name).is_symlink()]
        for name in (*files, *links):
            if not name.startswith("."):
                path = Path(at, name)
                found.append(Found(path, path.relative_to(folder).as_posix(), _refusal(path)))
    return sorted(found, key=lambda entry: entry.relative.split("/"))


def _refusal(path: Path) -> str:
    """Why a file of a walk is not read, or nothing."""
    if path.is_symlink():
        # Out of the folder it leads where nobody pointed; within it, to a file that is read anyway.
        return "a link"
    if path.suffix.lower() not in _KINDS:
        return f"not a kind of file memory reads ({path.suffix or 'no suffix'})"
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "its name is not valid Unicode"
    return ""


def _first_that_fits(raw: bytes, *encodings: str) -> str:
    for encoding in encodings[:-1]:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode(encodings[-1])


def _looks_binary(text: str) -> bool:
    """More than one control character in fifty, of the first 8,000."""
    start = text[:8000]
    return sum(c < " " and c not in "\t\n\r\f\v\b\x1b" for c in start) * 50 > len(start)


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_text(raw: bytes) -> Loaded:
    text = decode(raw)
    return Loaded(text, document_title(text))


def _read_page(raw: bytes) -> Loaded:
    return Loaded(*read_html(decode(raw)))


def _read_pdf(raw: bytes) -> Loaded:
    """The text of all pages, a blank line between them."""
    try:
        import pypdf
        from pypdf.errors import DependencyError
    except ImportError as exc:
        raise MissingExtraError("loaders", "Reading a PDF file") from exc
    logging.getLogger("pypdf").addHandler(logging.NullHandler())  # it reports every flaw it works around
    try:
        reader = pypdf.PdfReader(io.BytesIO(raw))
        # Many PDFs are encrypted with an empty password: anybody may read, not everybody may print.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFileError("encrypted")
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except UnreadableFileError:
        raise
    except DependencyError as exc:
        raise UnreadableFileError(
            "encrypted; reading it needs the package 'cryptography'", gone=False
        ) from exc
    except Exception as exc:
        # pypdf documents that broken files cause exceptions of any type.
        raise UnreadableFileError(f"not a readable PDF: {type(exc).__name__}: {exc}") from exc
    text = "\n\n".join(_newlines(page).strip() for page in pages)
    if not text.strip():
        raise UnreadableFileError("holds no text (scanned pages?)")
    return Loaded(text, " ".join(title.split()))


_KINDS: dict[str, Callable[[bytes], Loaded]] = {
    **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".rst"), _read_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _read_page),
    ".pdf": _read_pdf,
}
#: The suffixes that a walk reads.
SUFFIXES = frozenset(_KINDS)

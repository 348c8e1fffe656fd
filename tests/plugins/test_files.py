from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

import pytest

from kernloom import ApprovalRequired, FunctionDenied, Kernel, ModelRetry
from kernloom.kernel.config.config import Config
from kernloom.kernel.errors import FunctionError
from kernloom.kernel.functions import Context
from kernloom.plugins.files import Files, FilesSettings

links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "docs" / "deep").mkdir(parents=True)
    (folder / "a.md").write_text("one\ntwo\nthree\n", encoding="utf-8")
    (folder / "docs" / "b.md").write_text("Reisekosten: Über 2000 €\n", encoding="utf-8")
    (folder / "docs" / "deep" / "c.txt").write_text("Two hundred\n", encoding="utf-8")
    (folder / ".env").write_text("SECRET=1", encoding="utf-8")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("two", encoding="utf-8")
    (tmp_path / "outside.txt").write_text("two secrets", encoding="utf-8")
    return folder


@pytest.fixture
def files(root: Path) -> Files:
    return Files(root)


@pytest.fixture
def context() -> Context:
    return Kernel().context()


# -- reading -------------------------------------------------------------------------------------------


def test_a_folder_is_listed_without_what_is_hidden(files: Files, context: Context) -> None:
    assert files.entries(context) == ["a.md", "docs/"]
    assert files.entries(context, "docs", "*.md") == ["b.md"]


def test_a_file_is_read_whole_or_by_lines(files: Files, context: Context) -> None:
    assert files.read("a.md", context) == "one\ntwo\nthree\n"
    assert files.read("a.md", context, 2) == "two\nthree\n"
    assert files.read("docs/../a.md", context, 2, 2) == "two\n"
    assert files.read("docs/b.md", context) == "Reisekosten: Über 2000 €\n"


def test_search_finds_lines_in_all_folders(files: Files, context: Context) -> None:
    assert files.search("TWO", context) == [
        {"path": "a.md", "line": 2, "text": "two"},
        {"path": "docs/deep/c.txt", "line": 1, "text": "Two hundred"},
    ]
    assert files.search("über", context, "docs", "*.md") == [
        {"path": "docs/b.md", "line": 1, "text": "Reisekosten: Über 2000 €"}
    ]
    assert [hit["line"] for hit in files.search("three", context, "a.md")] == [3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f, c: f.read("nothing.md", c), "files.list"),
        (lambda f, c: f.read("docs", c), "no ordinary file"),
        (lambda f, c: f.entries(c, "a.md"), "is a file"),
        (lambda f, c: f.read("a.md", c, 9), "has 3 lines"),
        (lambda f, c: f.read("a.md", c, 0), "no range"),
        (lambda f, c: f.read("a.md", c, 3, 2), "no range"),
        (lambda f, c: f.search(" ", c), "text is empty"),
    ],
)
def test_slips_are_answered_in_words(files: Files, context: Context, call: object, words: str) -> None:
    with pytest.raises(ModelRetry, match=words):
        call(files, context)  # type: ignore[operator]


def test_what_is_no_text_is_not_read(files: Files, context: Context, root: Path) -> None:
    (root / "image.png").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(ModelRetry, match="is not text"):
        files.read("image.png", context)
    assert files.search("PNG", context) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_refused_without_waiting_for_it(files: Files, context: Context, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(ModelRetry, match="no ordinary file"):
        files.read("pipe", context)
    assert len(files.search("one", context)) == 1
    with pytest.raises(ModelRetry, match="no file that can be written"):
        files.write("pipe", "x", context, "append")


def test_large_files_are_read_in_parts_and_long_lists_cut(root: Path, context: Context) -> None:
    limited = Files(settings=FilesSettings(root=root, max_bytes=100, max_results=2, max_searched=3))
    (root / "large.txt").write_text("x\n" * 500 + "needle\n", encoding="utf-8")
    with pytest.raises(ModelRetry, match="start_line"):
        limited.read("large.txt", context)
    assert limited.read("large.txt", context, 501) == "needle\n"
    assert limited.entries(context) == ["a.md", "docs/", "… and 1 more"]
    assert len(limited.search("x", context, "large.txt")) == 2


# -- the fence -----------------------------------------------------------------------------------------

ESCAPES = [
    "../outside.txt",
    "docs/../../outside.txt",
    "docs/deep/../../../outside.txt",
    "/etc/passwd",
    "//server/share/file",
    "\\\\server\\share\\file",
    "\\windows\\win.ini",
    "C:\\windows\\win.ini",
    "c:outside.txt",
    "a.md\0.png",
    "\0",
    "../root-but-not/x",
    "x" * 5000,
]


@pytest.mark.parametrize("path", ESCAPES)
def test_no_path_leads_out(files: Files, context: Context, path: str, root: Path) -> None:
    before = sorted(p.as_posix() for p in root.parent.rglob("*"))
    for call in (
        lambda: files.read(path, context),
        lambda: files.entries(context, path),
        lambda: files.search("two", context, path),
        lambda: files.write(path, "x", context, "overwrite"),
    ):
        with pytest.raises(FunctionError):
            call()
    assert sorted(p.as_posix() for p in root.parent.rglob("*")) == before


@pytest.mark.parametrize("path", [".env", ".git/config", "docs/.hidden", ".git", "docs/../.env"])
def test_hidden_files_are_not_for_an_assistant_unless_a_person_says_so(
    files: Files, context: Context, root: Path, path: str
) -> None:
    with pytest.raises(FunctionDenied, match="hidden"):
        files.read(path, context)
    with pytest.raises(FunctionDenied, match="hidden"):
        files.write(path, "x", context)
    shown = Files(root, settings=FilesSettings(hidden=True))
    assert shown.read(".env", context) == "SECRET=1"


@links
def test_links_count_for_where_they_lead(files: Files, context: Context, root: Path) -> None:
    (root / "out.txt").symlink_to(root.parent / "outside.txt")
    (root / "up").symlink_to(root.parent, target_is_directory=True)
    (root / "env").symlink_to(root / ".env")
    (root / "inside.md").symlink_to(root / "a.md")
    (root / "circle").symlink_to(root / "circle")
    (root / "new.txt").symlink_to(root.parent / "made.txt")
    for path in ("out.txt", "up/outside.txt", "up", "env", "circle", "new.txt"):
        with pytest.raises(FunctionError):
            files.read(path, context)
        with pytest.raises(FunctionError):
            files.write(path, "x", context, "overwrite")
    assert not (root.parent / "made.txt").exists()
    assert files.read("inside.md", context, 1, 1) == "one\n"
    assert all("secrets" not in str(hit["text"]) for hit in files.search("two", context))


@pytest.mark.parametrize(
    ("before", "text", "mode"),
    [
        (None, "[tool.kernloom.policy]\nwrite = 'allow'\n", "create"),
        ("[tool.kernloom]\n", "[project]\n", "overwrite"),
        ("[tool.ruff]\n[tool.kernl", "oom.policy]\nwrite = 'allow'\n", "append"),
    ],
)
def test_a_pyproject_that_configures_kernloom_is_not_written(
    root: Path, files: Files, context: Context, before: str | None, text: str, mode: Literal["append"]
) -> None:
    file = root / "pyproject.toml"
    if before is not None:
        file.write_text(before, encoding="utf-8")
    with pytest.raises(FunctionDenied, match="trusted"):
        files.write("pyproject.toml", text, context, mode)
    assert (file.read_text(encoding="utf-8") if file.exists() else None) == before


def test_a_pyproject_that_says_nothing_of_kernloom_is_a_file_like_any(
    files: Files, context: Context
) -> None:
    assert files.write("pyproject.toml", "[project]\nname = 'boats'\n", context) == "pyproject.toml"


@pytest.mark.parametrize("name", ["kernloom.toml", "kernloom.lock", "KERNLOOM.LOCK", "docs/kernloom.toml"])
def test_what_decides_about_trust_is_never_written(files: Files, context: Context, name: str) -> None:
    with pytest.raises(FunctionDenied, match="decides what is trusted"):
        files.write(name, "", context, "overwrite")


# -- writing -------------------------------------------------------------------------------------------


def test_writing_creates_replaces_or_adds(files: Files, context: Context, root: Path) -> None:
    assert files.write("new/folder/d.md", "1\n", context) == "new/folder/d.md"
    with pytest.raises(ModelRetry, match="exists already"):
        files.write("new/folder/d.md", "2\n", context)
    files.write("new/folder/d.md", "3\n", context, "append")
    assert (root / "new/folder/d.md").read_text(encoding="utf-8") == "1\n3\n"
    files.write("new/folder/d.md", "4\n", context, "overwrite")
    assert (root / "new/folder/d.md").read_text(encoding="utf-8") == "4\n"
    assert os.listdir(root / "new/folder") == ["d.md"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are other things there")
def test_replacing_keeps_the_permissions(files: Files, context: Context, root: Path) -> None:
    (root / "a.md").chmod(0o640)
    files.write("a.md", "new", context, "overwrite")
    assert (root / "a.md").stat().st_mode & 0o777 == 0o640


def test_too_much_is_not_written(root: Path, context: Context) -> None:
    files = Files(root, settings=FilesSettings(max_bytes=10))
    with pytest.raises(ModelRetry, match="10 are allowed"):
        files.write("big.txt", "ä" * 6, context)
    assert not (root / "big.txt").exists()
    with pytest.raises(ModelRetry, match="no file that can be written"):
        files.write("docs", "x", context, "overwrite")
    with pytest.raises(ModelRetry, match="cannot be made"):
        files.write("a.md/x", "x", context)


# -- through a kernel ----------------------------------------------------------------------------------


async def test_the_project_is_the_root_unless_settings_say_otherwise(root: Path) -> None:
    (root / "kernloom.toml").touch()
    async with Kernel(config=Config.load(root / "docs", env={})) as kernel:
        assert "docs/" in await kernel.invoke("files.list")
        assert await kernel.invoke("files.read", path="a.md", end_line=1) == "one\n"
        parameters = kernel.function("files.read").parameters["properties"]
        assert list(parameters) == ["path", "start_line", "end_line"]
    (root / "kernloom.toml").write_text(f"[plugins.files]\nroot = '{(root / 'docs').as_posix()}'\n")
    async with Kernel(config=Config.load(root, env={})) as kernel:
        assert await kernel.invoke("files.list") == ["b.md", "deep/"]


async def test_a_model_writes_only_when_a_person_agrees(root: Path) -> None:
    async with Kernel() as kernel:
        kernel.add_plugin(Files(root))
        with pytest.raises(ApprovalRequired):
            await kernel.invoke("files.write", kernel.context(origin="model"), path="x.md", text="x")
        assert await kernel.invoke("files.read", kernel.context(origin="model"), path="a.md")
    assert not (root / "x.md").exists()

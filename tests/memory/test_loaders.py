"""Files become text, or are skipped with a reason; nothing in them stops a walk."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

import pytest
from fpdf import FPDF
from hypothesis import given
from hypothesis import strategies as st

from kernloom.memory.html import strip_tags
from kernloom.memory.loaders import UnreadableFileError, load, parse, walk


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pdf(*pages: str, title: str = "", password: str = "") -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    if title:
        document.set_title(title)
    if password:
        document.set_encryption(owner_password=password + "!", user_password=password)
    for page in pages:
        document.add_page()
        document.multi_cell(0, text=page)
    return bytes(document.output())


PAGE = """<!DOCTYPE html><html><head><title>Rooms &amp; desks</title>
<style>p {color: red}</style></head><body>
<nav>Home | About</nav>
<h1>Rooms</h1><p>Rooms are booked in the planner,
at most 60 days ahead.</p>
<h2>The rooms</h2><table><tr><th>Room</th><th>Seats</th></tr><tr><td>Heron</td><td>6</td></tr></table>
<h2>Who comes first</h2><ol><li>meetings with customers</li><li>interviews</li></ol>
<p>A room in which nobody has checked in ten minutes after the start is released to others who want it.</p>
<script>alert("never text")</script></body></html>"""


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Zoë\r\nline\rend".encode(), "Zoë\nline\nend"),
        (codecs.BOM_UTF8 + "Zoë".encode(), "Zoë"),
        ("Zoë".encode("utf-16"), "Zoë"),
        (codecs.BOM_UTF16_BE + "Zoë".encode("utf-16-be"), "Zoë"),
        ("Zoë".encode("utf-32"), "Zoë"),
        ("Zoë “quoted” €".encode("cp1252"), "Zoë “quoted” €"),
        (b"latin \x81 only", "latin \x81 only"),
    ],
)
def test_text_is_read_in_the_encoding_it_has(tmp_path: Path, raw: bytes, text: str) -> None:
    assert load(write(tmp_path / "a.txt", raw)).text == text


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.md", b" \n\t\n", "empty"),
        ("a.txt", b"MZ\x00\x01\x02", "binary"),
        ("a.txt", bytes(range(1, 32)) * 40, "binary"),
        ("a.txt", codecs.BOM_UTF16_LE + b"\x00\xd8x", "not valid utf-16"),
        ("a.pdf", b"%PDF-1.7\nnothing else", "not a readable PDF"),
        ("a.pdf", b"", "not a readable PDF"),
        ("a.pdf", pdf(""), "holds no text"),
        ("a.pdf", pdf("secret", password="x"), "encrypted"),
        ("a.html", b"<html><body><script>x()</script></body></html>", "holds no text"),
    ],
)
def test_what_is_not_text_says_why(tmp_path: Path, name: str, raw: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFileError, match=reason):
        load(write(tmp_path / name, raw))


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="larger than 1 MiB"):
        load(write(tmp_path / "a.txt", b"x" * (2**20 + 1)), max_bytes=2**20)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        load(tmp_path / "pipe.txt")


def test_the_title_is_what_the_file_calls_itself(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.md", "# Travel *policy*\n\nText.")).title == "Travel policy"
    assert load(write(tmp_path / "travel-limits_2024.txt", "Text.")).title == "travel limits 2024"
    assert load(write(tmp_path / "a.html", PAGE)).title == "Rooms & desks"
    assert load(write(tmp_path / "a.pdf", pdf("Text.", title="Annual report"))).title == "Annual report"


def test_a_page_keeps_its_headings_lists_and_tables_and_loses_its_scripts(tmp_path: Path) -> None:
    text = load(write(tmp_path / "a.html", PAGE)).text
    assert "## Who comes first" in text
    assert "interviews" in text
    assert "| Room | Seats |\n|---|---|\n| Heron | 6 |" in text
    assert "never text" not in text
    assert "color" not in text


def test_stripping_tags_keeps_what_a_reader_sees() -> None:
    page = strip_tags(PAGE)
    assert page.title == "Rooms & desks"
    assert "# Rooms\n\nRooms are booked in the planner, at most 60 days ahead." in page.text
    assert "1. meetings with customers\n2. interviews" in page.text
    assert "| Room | Seats |\n|---|---|\n| Heron | 6 |" in page.text
    assert "Home" not in page.text
    assert "never text" not in page.text


def test_a_frame_of_menus_is_cut_away(tmp_path: Path) -> None:
    menu = "".join(f'<li><a href="/{n}">Department {n} of the company</a></li>' for n in range(60))
    article = "".join(
        f"<p>Sentence {n} of the article says what must be done, and by whom.</p>" for n in range(15)
    )
    page = f"<body><div class='menu'><ul>{menu}</ul></div><article><h1>Rule</h1>{article}</article></body>"
    text = load(write(tmp_path / "a.html", page)).text
    assert "Sentence 14" in text
    assert "Department 7" not in text


def test_a_table_with_unclosed_rows_and_paragraphs_in_cells_keeps_its_rows() -> None:
    page = strip_tags("<table><tr><td><p>a</p><td>b<tr><td>c</td><td>d</table><p>after")
    assert page.text == "| a | b |\n|---|---|\n| c | d\n\nafter"


def test_a_fragment_too_short_for_extraction_is_still_read(tmp_path: Path) -> None:
    assert "Closed on Friday" in load(write(tmp_path / "a.html", "<p>Closed on Friday.</p>")).text


def test_pages_of_a_pdf_follow_each_other(tmp_path: Path) -> None:
    assert (
        load(write(tmp_path / "a.pdf", pdf("First page.", "Second page."))).text
        == "First page.\n\nSecond page."
    )


def test_a_walk_is_ordered_and_leaves_hidden_files_and_links_out(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.txt", "not yours")
    folder = tmp_path / "docs"
    for name in ("b.md", "a/z.txt", "a/.hidden.txt", ".git/config.txt", "c.png", "a-b.md"):
        write(folder / name, "text")
    (folder / "link.txt").symlink_to(outside)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    found = walk(folder)
    assert [f.relative for f in found if not f.reason] == ["a/z.txt", "a-b.md", "b.md"]
    assert {f.relative: f.reason for f in found if f.reason} == {
        "c.png": "not a kind of file memory reads (.png)",
        "link.txt": "a link",
        "loop": "a link",
    }


@given(raw=st.binary(max_size=300), suffix=st.sampled_from([".txt", ".md", ".html", ".pdf"]))
def test_any_bytes_are_text_or_refused(raw: bytes, suffix: str) -> None:
    try:
        loaded = parse(raw, Path("any" + suffix))
    except UnreadableFileError:
        return
    assert loaded.text.strip()
    loaded.text.encode()

"""Plain operations on text. Everything is literal: no patterns, so nothing that can run away."""

from __future__ import annotations

from ..kernel.errors import ModelRetry
from ..kernel.functions import function

#: Longest result, in characters.
MAX_LENGTH = 1_000_000


class Text:
    """Change case, split, join, replace, count, cut."""

    name = "text"

    @function(inline=True)
    def upper(self, text: str) -> str:
        """The text in capital letters.

        Args:
            text: Any text.
        """
        return text.upper()

    @function(inline=True)
    def lower(self, text: str) -> str:
        """The text in small letters.

        Args:
            text: Any text.
        """
        return text.lower()

    @function(inline=True)
    def title(self, text: str) -> str:
        """The text with each word capitalised; what follows an apostrophe stays small.

        Args:
            text: Any text.
        """
        words = text.split(" ")
        return " ".join(word[:1].upper() + word[1:].lower() for word in words)

    @function(inline=True)
    def strip(self, text: str) -> str:
        """The text without white space at both ends.

        Args:
            text: Any text.
        """
        return text.strip()

    @function(inline=True)
    def split(self, text: str, separator: str = "") -> list[str]:
        """Cut a text into parts.

        Args:
            text: Any text.
            separator: Where to cut, literally; empty cuts at any white space.
        """
        return text.split(separator or None)

    @function(inline=True)
    def lines(self, text: str) -> list[str]:
        """The lines of a text.

        Args:
            text: Any text.
        """
        return text.splitlines()

    @function(inline=True)
    def join(self, parts: list[str], separator: str = "\n") -> str:
        """Put texts together.

        Args:
            parts: The texts, in order.
            separator: What stands between them; a line break by default.
        """
        size = sum(map(len, parts)) + len(separator) * max(len(parts) - 1, 0)
        _check_size(size)
        return separator.join(parts)

    @function(inline=True)
    def replace(self, text: str, old: str, new: str) -> str:
        """Replace every occurrence of a piece of text.

        Args:
            text: Any text.
            old: What to look for, literally; not empty.
            new: What to put there.
        """
        if not old:
            raise ModelRetry("old is empty.", hint="Say what to replace.")
        _check_size(len(text) + text.count(old) * (len(new) - len(old)))
        return text.replace(old, new)

    @function(inline=True)
    def count(self, text: str) -> dict[str, int]:
        """How many characters, words and lines a text has.

        Args:
            text: Any text.
        """
        return {"characters": len(text), "words": len(text.split()), "lines": len(text.splitlines())}

    @function(inline=True)
    def between(self, text: str, start: str, end: str) -> list[str]:
        """The pieces of a text that stand between two marks.

        Args:
            text: Any text.
            start: What stands before each piece, literally; not empty.
            end: What stands after each piece, literally; not empty.
        """
        if not (start and end):
            raise ModelRetry("start and end must not be empty.")
        found: list[str] = []
        position = text.find(start)
        while position >= 0:
            begin = position + len(start)
            stop = text.find(end, begin)
            if stop < 0:
                break
            found.append(text[begin:stop])
            position = text.find(start, stop + len(end))
        return found

    @function(inline=True)
    def truncate(self, text: str, length: int, ending: str = "…") -> str:
        """The beginning of a text, cut at a word where there is one.

        Args:
            text: Any text.
            length: The most characters the result may have, the ending included.
            ending: What shows that something was left out.
        """
        if length < len(ending):
            raise ModelRetry(f"length is {length}, shorter than the ending {ending!r}.")
        if len(text) <= length:
            return text
        kept, following = text[: length - len(ending)], text[length - len(ending)]
        if kept and not kept[-1].isspace() and not following.isspace():
            whole_words = kept.rsplit(None, 1)
            kept = whole_words[0] if len(whole_words) == 2 else kept
        return kept.rstrip() + ending


def _check_size(size: int) -> None:
    if size > MAX_LENGTH:
        raise ModelRetry(f"The result would have {size} characters; {MAX_LENGTH} are allowed.")

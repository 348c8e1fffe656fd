"""An agent's reply as a person reads it: the answer, its sources, and what it rests on."""

from __future__ import annotations

from typing import Any

from ..kernel.agents.reply import Reply, StreamItem
from ..kernel.journal import Event
from ..kernel.journal import events as kinds
from ..kernel.messages import Citation, Grounding, Passage
from .screen import Screen, table


def as_data(reply: Reply) -> dict[str, Any]:
    """The reply as JSON."""
    grounding = reply.grounding
    return {
        "text": reply.text,
        "citations": [{**c.model_dump(mode="json"), "place": c.place} for c in reply.citations],
        "found": grounding.found if grounding else None,
        "reason": grounding.reason if grounding else None,
        "passages": [p.model_dump(mode="json") for p in grounding.passages] if grounding else [],
        "usage": reply.usage.model_dump(mode="json"),
        "session": reply.session,
        "finish_reason": reply.finish_reason,
    }


def whole(screen: Screen, reply: Reply) -> str:
    """The answer and, below it, its sources."""
    listed = sources(screen, reply)
    return f"{reply.text}\n\n{listed}" if listed else reply.text


def sources(screen: Screen, reply: Reply) -> str:
    """``[1] travel.md:41-47  keyword #1  vector #3``, a line for each place the answer cites."""
    passages = {p.label: p for p in reply.grounding.passages} if reply.grounding else {}
    seen: dict[tuple[str, str], list[str]] = {}
    for citation in reply.citations:
        row = [
            f"[{citation.label}]",
            citation.place,
            *_ranks(passages.get(citation.label)),
            _mark(screen, citation),
        ]
        seen.setdefault((citation.label, citation.place), row)
    return table(list(seen.values()), indent="  ")


def footing(screen: Screen, reply: Reply) -> str:
    """What the answer rests on, what it cost, and how to go on with it."""
    words = [_grounded(reply.grounding, reply.citations)]
    if reply.usage.requests and reply.usage.total:
        words.append(f"{reply.usage.input} in / {reply.usage.output} out")
    if reply.finish_reason == "length":
        words.append("cut short: the model reached its limit")
    words.append(f"session {reply.session}")
    return screen.paint("  " + " · ".join(filter(None, words)), "dim", err=True)


def _grounded(grounding: Grounding | None, citations: tuple[Citation, ...]) -> str:
    if grounding is None:
        return "no memory"
    if not grounding.found:
        return "not found in memory"
    if not citations:
        return "nothing cited"
    good = sum(citation.verified for citation in citations)
    return f"grounded: {good}/{len(citations)} quotes verified"


def _ranks(passage: Passage | None) -> list[str]:
    if passage is None:
        return ["", ""]
    keyword = f"keyword #{passage.keyword_rank}" if passage.keyword_rank else ""
    vector = f"vector #{passage.vector_rank}" if passage.vector_rank else ""
    return [keyword, vector]


def _mark(screen: Screen, citation: Citation) -> str:
    return "" if citation.verified else screen.paint("not verified", "bad")


def going_on(item: StreamItem) -> str | None:
    """What a piece of a stream means to somebody who waits."""
    if not isinstance(item, Event):
        return None
    match item.data:
        case kinds.Retrieval(grounding=grounding):
            return f"found {len(grounding.passages)} passages, writing …"
        case kinds.ModelRequested(model=model):
            return f"{model} is writing …"
        case kinds.FunctionStarted(name=name):
            return f"calling {name} …"
    return None

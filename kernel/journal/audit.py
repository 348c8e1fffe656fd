"""Who was asked what, who answered, and what came of it: a view of the journal, for those who must know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Literal

from ..messages import Frozen
from .events import (
    Event,
    FunctionFailedEvent,
    FunctionFinished,
    FunctionInDoubtEvent,
    QuestionAnswered,
    QuestionAsked,
)
from .journal import Journal
from .records import unpack
from .stores import SessionHead

_KINDS = (
    "question.asked", "question.answered", "function.finished", "function.failed", "function.in_doubt",
)  # fmt: skip
Outcome = Literal["finished", "failed", "in_doubt"]
_OUTCOMES: dict[type, Outcome] = {
    FunctionFinished: "finished",
    FunctionFailedEvent: "failed",
    FunctionInDoubtEvent: "in_doubt",
}


class AuditLine(Frozen):
    """One question and its answer. As a line of JSON: ``line.model_dump_json()``."""

    session: str
    run: str | None
    #: Where the question stands, and when it was asked, in seconds since the epoch.
    seq: int
    asked_at: float
    #: The agent or plan for which it was asked.
    asked_by: str
    about: Literal["approval", "review", "clarification", "in_doubt"]
    text: str
    #: The function that was to be called, the call's id, and its arguments as JSON text.
    function: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    #: ``allow``, ``deny``, what became of a call in doubt, or free text; None while nobody has answered.
    answer: str | None = None
    #: The arguments that whoever answered put in the place of those asked about.
    instead: dict[str, Any] | None = None
    answered_by: str | None = None
    answered_at: float | None = None
    #: What became of the call; None while it has no outcome, or if the question was about none.
    outcome: Outcome | None = None
    outcome_at: float | None = None


async def audit(
    journal: Journal, *, session: str | None = None, since: float | None = None
) -> AsyncIterator[AuditLine]:
    """Every question put to a person, oldest session first, in the order asked.

    Args:
        journal: where to look.
        session: in this session only.
        since: asked at this time (seconds since the epoch) or later.

    A fork's lines are those it does not share. Damage is raised, not passed over: an audit with holes is
    none.

    Raises:
        NotFoundError: the session is not there.
        JournalError: ``journal.corrupt``, ``journal.version``, or what the store says.
    """
    heads = [await journal.find(session)] if session else await journal.store.sessions()
    for head in sorted(heads, key=lambda head: (head.created, head.id)):
        if since is not None and head.updated < since:
            continue
        rows = await journal.store.read(head.id, kinds=_KINDS)
        for line in _lines(head, [unpack(head, row) for row in rows], shared=session is None):
            if since is None or line.asked_at >= since:
                yield line


def _lines(head: SessionHead, events: Iterable[Event], *, shared: bool) -> Iterator[AuditLine]:
    """The questions of one session; not those that were over before its fork, if they are ``shared``."""
    start = head.base[1] if head.base and shared else 0
    asked: list[Event] = []
    answered: dict[int, Event] = {}
    current: dict[str, int] = {}
    outcomes: dict[str, list[Event]] = {}
    for event in events:
        data = event.data
        if isinstance(data, QuestionAsked):
            current[data.question_id] = event.seq
            asked.append(event)
        elif isinstance(data, QuestionAnswered):
            if data.question_id in current:
                answered[current[data.question_id]] = event
        elif isinstance(data, (FunctionFinished, FunctionFailedEvent, FunctionInDoubtEvent)):
            outcomes.setdefault(data.result.call_id, []).append(event)
    for question in asked:
        answer = answered.get(question.seq)
        if (answer or question).seq > start:
            yield _line(head, question, answer, outcomes)


def _line(
    head: SessionHead, question: Event, answer: Event | None, outcomes: dict[str, list[Event]]
) -> AuditLine:
    asked = question.data
    assert isinstance(asked, QuestionAsked)  # noqa: S101 - what _lines hands over
    line = AuditLine(
        session=head.id,
        run=question.run,
        seq=question.seq,
        asked_at=question.at,
        asked_by=question.actor,
        about=asked.about,
        text=asked.text,
    )
    found: dict[str, object] = {}
    if asked.call is not None:
        found.update(function=asked.call.name, call_id=asked.call.id, arguments=asked.call.arguments)
        after = [event for event in outcomes.get(asked.call.id, ()) if event.seq > question.seq]
        if after:
            found.update(outcome=_OUTCOMES[type(after[0].data)], outcome_at=after[0].at)
    if answer is not None and isinstance(answer.data, QuestionAnswered):
        found.update(
            answer=answer.data.answer,
            instead=answer.data.arguments,
            answered_by=answer.data.by or answer.actor,
            answered_at=answer.at,
        )
    return line.model_copy(update=found)

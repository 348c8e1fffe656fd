"""What waits for a person, in a session and in those that were opened for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..journal.events import Event, QuestionAnswered, QuestionAsked
from ..journal.journal import Journal
from ..journal.records import unpack
from ..journal.stores import SessionHead

_QUESTIONS = frozenset({"question.asked", "question.answered"})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question without an answer."""

    #: The session it stands in: that of the run, or of an agent or plan the run has called.
    session: str
    question: QuestionAsked
    #: The agent or plan that asked, and when, in seconds since the epoch.
    by: str
    at: float


async def waiting(journal: Journal, session: str) -> list[Waiting]:
    """The open questions of a session, then those of the agents and plans its run has called.

    Only the events of questions are read. What a run that was given up has left open in a session below
    it is not among them: nobody waits for it any more.

    Raises:
        NotFoundError: the session is not there.
        JournalError: an event that is needed cannot be read.
    """
    found = [item async for item in _open(journal, await journal.find(session))]
    return sorted(found, key=lambda item: (item.session != session, item.at))


async def _open(journal: Journal, head: SessionHead) -> AsyncIterator[Waiting]:
    asked: dict[str, Event] = {}
    for row in await journal.store.read(head.id, kinds=_QUESTIONS):
        event = unpack(head, row)
        if isinstance(event.data, QuestionAsked):
            asked[event.data.question_id] = event
        elif isinstance(event.data, QuestionAnswered):
            asked.pop(event.data.question_id, None)
    for event in asked.values():
        assert isinstance(event.data, QuestionAsked)  # noqa: S101 - what was put there
        yield Waiting(head.id, event.data, event.actor, event.at)
    for child in await journal.store.sessions(parent=head.id):
        if child.base is None and await _is_current(journal, head, child):
            async for item in _open(journal, child):
                yield item


async def _is_current(journal: Journal, head: SessionHead, child: SessionHead) -> bool:
    """Whether the run that opened ``child`` is the last one of its session."""
    assert child.parent is not None  # noqa: S101 - it was found by it
    opening = await journal.store.read(head.id, after=child.parent[1] - 1, limit=1)
    last = await journal.store.read(head.id, kinds={"run.started"}, newest=True, limit=1)
    return bool(opening and last) and opening[0].run == last[0].run

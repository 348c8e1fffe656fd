"""A conversation: the object that works on one session of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ..journal.events import Event, EventData

if TYPE_CHECKING:
    from ..journal.journal import SessionLog
    from ..kernel import Kernel
    from ..messages import Message


class Conversation:
    """One session, opened to be continued.

    Everything it knows is read from the log; reopening it by id, in this process or another, gives the
    same conversation. Get one with :meth:`open`.
    """

    def __init__(self, log: SessionLog) -> None:
        self.log = log

    @classmethod
    async def open(cls, kernel: Kernel, session: str | Conversation | None = None) -> Self | Conversation:
        """The conversation of that id, or a new one.

        Raises:
            NotFoundError: no session has that id.
        """
        if isinstance(session, Conversation):
            return session
        if session is None:
            return cls(await kernel.journal.create())
        return cls(await kernel.journal.open(session))

    async def mend(self, *, run: str | None = None) -> None:
        """Give every call that is still open its outcome, so that the history is valid again.

        A call that never started failed; one that had may have had its effect and is in doubt. For a
        session nobody is at work in: after a run was stopped, or the process before this one was.
        """
        await self.log.append(*self.log.history.repair(), actor="kernloom", run=run)

    @property
    def id(self) -> str:
        """The session's id."""
        return self.log.id

    @property
    def events(self) -> list[Event]:
        """Everything that has happened, oldest first."""
        return self.log.events

    @property
    def messages(self) -> list[Message]:
        """The transcript as a model may be sent it: every call beside its result."""
        return self.log.messages()

    async def add(self, *data: EventData, actor: str, run: str | None = None) -> None:
        """Append events."""
        await self.log.append(*data, actor=actor, run=run)

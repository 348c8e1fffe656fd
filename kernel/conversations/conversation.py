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

        A call that was open when the process before stopped is given its outcome first (failed if it
        never started, in doubt if it had), so that the history is valid again.

        Raises:
            NotFoundError: no session has that id.
        """
        if isinstance(session, Conversation):
            return session
        if session is None:
            return cls(await kernel.journal.create())
        log = await kernel.journal.open(session)
        for outcome in log.history.repair():
            await log.append(outcome, actor="kernloom")
        return cls(log)

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

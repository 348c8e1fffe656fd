"""A conversation: the object that works on one session of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError, not_found
from ..journal.events import Event, EventData, QuestionAnswered, QuestionAsked

if TYPE_CHECKING:
    from ..journal.journal import SessionLog
    from ..kernel import Kernel
    from ..messages import Message

#: What can be said to a question, by what it is about; None: anything.
ANSWERS: dict[str, frozenset[str] | None] = {
    "approval": frozenset({"allow", "deny"}),
    "in_doubt": frozenset({"done", "not_done", "abandon"}),
    "review": None,
    "clarification": None,
}


class Conversation:
    """One session, opened to be continued.

    Everything it knows is read from the log; reopening it by id, in this process or another, gives the
    same conversation. Get one with :meth:`open`.
    """

    def __init__(self, log: SessionLog) -> None:
        self.log = log

    @classmethod
    async def open(cls, kernel: Kernel, session: str | Conversation | None = None) -> Conversation:
        """The conversation of that id, or a new one.

        Raises:
            NotFoundError: no session has that id.
        """
        if isinstance(session, Conversation):
            return session
        if session is None:
            return cls(await kernel.journal.create())
        return cls(await kernel.journal.open(session))

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

    @property
    def questions(self) -> tuple[QuestionAsked, ...]:
        """What waits for a person's answer, oldest first."""
        return self.log.history.questions()

    async def answer(
        self,
        question: str,
        answer: str,
        *,
        arguments: dict[str, Any] | None = None,
        result: Any = None,
        by: str = "person",
    ) -> None:
        """Record what a person says to a question; then resume the run that asked it.

        Args:
            question: its id.
            answer: to an approval ``allow`` or ``deny``; to a call in doubt ``done``, ``not_done`` or
                ``abandon``; to anything else free text.
            arguments: for an approval, to call with instead.
            result: for a call that was done, what it returned.
            by: who says it.

        Raises:
            NotFoundError: ``question.not_found``, nothing of that id waits for an answer.
            UsageError: ``question.answer``, that cannot be said to it.
            JournalError: ``journal.leased`` or ``journal.busy`` while a run is at work in the session.
        """
        async with self.log.claim(f"answer to {question}"):
            open_questions = {asked.question_id: asked for asked in self.questions}
            if question not in open_questions:
                raise not_found("open question", question, open_questions, code="question.not_found")
            allowed = ANSWERS[open_questions[question].about]
            if allowed is not None and answer not in allowed:
                raise UsageError(
                    f"{answer!r} is no answer to {question!r} ({open_questions[question].about}).",
                    code="question.answer",
                    hint=f"Say {' or '.join(sorted(allowed))}.",
                )
            said = QuestionAnswered(
                question_id=question, answer=answer, by=by, arguments=arguments, result=result
            )
            await self.add(said, actor=by)

    async def mend(self, *, run: str | None = None) -> None:
        """Give every call that is still open its outcome, so that the history is valid again.

        A call that never started failed; one that had may have had its effect and is in doubt. For a
        session nobody is at work in: after a run was given up, or the process before this one died and
        its run is not resumed.
        """
        await self.log.be_sure()
        await self.log.append(*self.log.history.repair(), actor="kernloom", run=run)

    async def add(self, *data: EventData, actor: str, run: str | None = None) -> None:
        """Append events."""
        await self.log.append(*data, actor=actor, run=run)

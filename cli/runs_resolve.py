"""``kernloom runs resolve``: a person's answer to what a run waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from ..kernel.conversations.conversation import Conversation
from ..kernel.conversations.waiting import Waiting, waiting
from ..kernel.errors import ModelRetry, NotFoundError, PluginError, UsageError, not_found
from ..kernel.journal import Journal
from .commands import Command, text_or_stdin
from .functions import json_object, wrong_arguments
from .questions import CHOICES, answering, as_data, value, what_to_type
from .screen import Screen
from .workspace import open_kernel, recorded


@click.command(cls=Command)
@click.argument("session")
@click.argument("words", nargs=-1, metavar="[QUESTION] ANSWER")
@click.option("--args", "given", metavar="JSON", help="With allow: call with these; - reads stdin.")
@click.option(
    "--result", metavar="VALUE", help="With done: what it returned, JSON or else text; - reads stdin."
)
@click.option("--by", default="person", show_default=True, metavar="NAME", help="Who says it.")
@click.pass_obj
def resolve(
    screen: Screen, session: str, words: tuple[str, ...], given: str | None, result: str | None, by: str
) -> None:
    """Answer a question that a run waits for.

    \b
    an approval        allow, deny
    a call in doubt    done (it happened), not-done (call it again), abandon
    anything else      text in quotes

    QUESTION is needed where several wait: its id, or a part that only it has. What a called agent or plan
    asks is answered here too. Then: kernloom runs resume SESSION.
    """
    if len(words) > 2:
        raise UsageError(
            f"{len(words)} words are too many.",
            code="question.answer",
            hint="Put an answer of several words in quotes.",
        )
    asyncio.run(_resolve(screen, session, words, given, result, by))


async def _resolve(
    screen: Screen, session: str, words: tuple[str, ...], given: str | None, result: str | None, by: str
) -> None:
    async with recorded(screen, session) as (journal, log):
        found = await waiting(journal, log.id)
        item = _chosen(log.id, found, words)
        answer = _answer(log.id, item, words)
        _check_extras(answer, given, result)
        arguments = json_object(given) if given is not None else None
        if arguments is not None:
            await _check_arguments(screen, item, arguments)
        await Conversation(await journal.open(item.session)).answer(
            item.question.question_id,
            answer,
            arguments=arguments,
            result=value(text_or_stdin(result)) if result is not None else None,
            by=by,
        )
        await _show(screen, journal, log.id, item, answer, by)


async def _show(
    screen: Screen, journal: Journal, session: str, item: Waiting, answer: str, by: str
) -> None:
    left = await waiting(journal, session)
    data = {
        "session": session,
        "question": item.question.question_id,
        "answer": answer,
        "by": by,
        "open": [as_data(other) for other in left],
    }
    screen.result(data, f"{item.question.question_id}: {answer.replace('_', '-')}")
    screen.note(what_to_type(session, left) if left else f"Go on: kernloom runs resume {session}")


def _chosen(session: str, found: list[Waiting], words: tuple[str, ...]) -> Waiting:
    """The question that is meant: the one that is named, or the only one."""
    if not found:
        raise NotFoundError(
            f"Session {session!r} waits for no answer.",
            code="question.not_found",
            hint=f"See how it stands: kernloom runs show {session}.",
        )
    named = words[0] if len(words) == 2 or (words and _is_named(words[0], found)) else None
    if named is not None:
        known = [item.question.question_id for item in found]
        exact = [item for item in found if item.question.question_id == named]
        found = exact or [item for item in found if named in item.question.question_id]
        if not found:
            raise not_found("open question", named, known, code="question.not_found")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} questions wait for an answer.",
            code="question.several",
            hint="Name one:\n" + "\n".join(answering(session, found)),
            questions=[as_data(item) for item in found],
        )
    return found[0]


def _is_named(word: str, found: list[Waiting]) -> bool:
    return any(item.question.question_id == word for item in found)


def _answer(session: str, item: Waiting, words: tuple[str, ...]) -> str:
    question = item.question
    choices = CHOICES[question.about]
    said = words[-1] if words and words[-1] != question.question_id else None
    if said is not None and choices is not None:
        said = said.lower().replace("_", "-")
    if said is None or (choices is not None and said not in choices):
        given = "There is no answer" if said is None else f"{said!r} is no answer"
        raise UsageError(
            f"{given} to {question.question_id!r} ({question.text}).",
            code="question.answer",
            hint=f"Say {' or '.join(choices)}:\n" + "\n".join(answering(session, [item]))
            if choices
            else "Write it behind the session's id, in quotes.",
        )
    return said.replace("-", "_") if question.about == "in_doubt" else said


def _check_extras(answer: str, given: str | None, result: str | None) -> None:
    for option, text, fits in (("--args", given, "allow"), ("--result", result, "done")):
        if text is not None and answer != fits:
            raise UsageError(
                f"{option} says nothing beside {answer.replace('_', '-')!r}.",
                code="question.answer",
                hint=f"It belongs to {fits}.",
            )


async def _check_arguments(screen: Screen, item: Waiting, arguments: dict[str, Any]) -> None:
    """Arguments that do not fit are refused here rather than handed to the model as its mistake."""
    call = item.question.call
    if call is None:
        return
    async with open_kernel(screen) as kernel:
        try:
            function = kernel.function(call.name)
        except (NotFoundError, PluginError):
            return  # known only to the program that runs it
        try:
            function.signature.validate(arguments)
        except ModelRetry as exc:
            raise wrong_arguments(function, exc) from exc

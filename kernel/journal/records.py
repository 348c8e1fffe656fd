"""Events as text and back: what stands in a store, and how it is made sure to be what was written."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError

from ..errors import JournalError, UsageError
from .events import (
    EVENT_VERSION,
    Event,
    EventData,
    FunctionFinished,
    PlanMade,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    checksum,
    dump_data,
    load_data,
)
from .stores import SessionHead, StoredEvent

#: The field of each event that may hold any JSON: there Python's values and what is read back may differ.
_FREE: dict[type, str] = {
    RunStarted: "input",
    RunFinished: "output",
    FunctionFinished: "value",
    PlanMade: "plan",
    StepStarted: "arguments",
    StepFinished: "result",
}
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def pack(
    head: SessionHead, seq: int, at: float, actor: str, run: str | None, data: EventData
) -> tuple[Event, StoredEvent]:
    """The event as kept in memory and as stored: equal to what will be read back, and sharing nothing."""
    try:
        text = dump_data(data)
        free = _FREE.get(type(data))
        if free is not None and not isinstance(getattr(data, free), (str, bool, type(None))):
            data = load_data(text, version=EVENT_VERSION)
    except PydanticSerializationError as exc:
        text, data = _mended(data, exc)
    except JournalError as exc:
        raise _not_json(data, exc) from exc
    at = float(at)  # a clock of whole seconds would be read back as another text, and fail its checksum
    mark = checksum(head.id, seq, at, actor, run, EVENT_VERSION, text, parent=head.parent)
    event = Event(seq, head.id, at, actor, data, run, head.parent)
    return event, StoredEvent(seq, at, actor, run, data.kind, EVENT_VERSION, mark, text, head.id)


def _mended(data: EventData, exc: PydanticSerializationError) -> tuple[str, EventData]:
    """Half a surrogate pair, which models do send, becomes U+FFFD; the rest is the caller's to mend."""
    try:
        text = json.dumps(data.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
        if not _LONE_SURROGATES.search(text):
            raise _not_json(data, exc) from exc
        text = _LONE_SURROGATES.sub("\ufffd", text)
        return text, load_data(text, version=EVENT_VERSION)
    except (ValueError, RecursionError, JournalError) as again:
        raise _not_json(data, again) from again


def _not_json(data: EventData, why: Exception) -> UsageError:
    return UsageError(
        f"{data.kind!r} cannot be journaled, a value in it is no JSON: {why}.",
        code="journal.not_json",
        hint="Hand over dicts, lists, text, finite numbers, booleans and None.",
        kind=data.kind,
    )


def unpack(head: SessionHead, row: StoredEvent) -> Event:
    """The event of a stored row, after its checksum was found true.

    What a fork shares is the event of the session it was written in.
    """
    seq, at, actor, run, kind, version, mark, text, session = row
    if not isinstance(text, str) or mark != checksum(
        session, seq, at, actor, run, version, text, parent=head.parent
    ):
        raise corrupt(head.id, seq, "its checksum does not match")
    try:
        data: Any = load_data(text, version=version)
    except JournalError as exc:
        exc.details.update(session=head.id, seq=seq)
        raise
    if data.kind != kind:
        raise corrupt(head.id, seq, f"it is stored as {kind!r}, but is {data.kind!r}")
    return Event(seq, session, at, actor, data, run, head.parent, version)


def corrupt(session: str, seq: int, why: str) -> JournalError:
    return JournalError(
        f"Event {seq} of session {session!r} is damaged: {why}.",
        code="journal.corrupt",
        hint="Restore the journal from a backup; other sessions can still be read.",
        session=session,
        seq=seq,
    )

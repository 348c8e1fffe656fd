"""Events as text and back: what stands in a store, and how it is made sure to be what was written."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError

from ..errors import JournalError, UsageError
from .events import MODELS, Event, EventData, checksum, dump_data
from .migrations import SCHEMA, EventSchema
from .stores import SessionHead, StoredEvent

#: The fields of each kind that may hold any JSON: there Python's values and what is read back may differ.
_FREE: dict[type, tuple[str, ...]] = {
    model: tuple(
        name
        for name, field in model.model_fields.items()
        if field.annotation is Any or "dict" in str(field.annotation)
    )
    for model in MODELS.values()
}
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,2})?")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
#: How the text of a tombstone begins; every other text begins with its kind.
_FORGOTTEN = '{"forgotten":'
#: How a text begins that :mod:`.encryption` sealed.
SEALED = '{"sealed":"'


def pack(
    head: SessionHead,
    seq: int,
    at: float,
    actor: str,
    run: str | None,
    data: EventData,
    *,
    schema: EventSchema = SCHEMA,
) -> tuple[Event, StoredEvent]:
    """The event as kept in memory and as stored: equal to what will be read back, and sharing nothing.

    Raises:
        UsageError: ``journal.not_json``.
    """
    version = schema.version(data.kind)
    try:
        text = dump_data(data)
        free = _FREE.get(type(data), ())
        if free and not all(isinstance(getattr(data, name), (str, bool, type(None))) for name in free):
            data = schema.load(data.kind, version, text)
    except PydanticSerializationError as exc:
        text, data = _mended(data, exc, schema)
    except JournalError as exc:
        raise _not_json(data, exc) from exc
    at = float(at)  # a clock of whole seconds would be read back as another text, and fail its checksum
    mark = checksum(head.id, seq, at, actor, run, version, text, parent=head.parent)
    event = Event(seq, head.id, at, actor, data, run, head.parent, version)
    return event, StoredEvent(seq, at, actor, run, data.kind, version, mark, text, head.id)


def _mended(data: EventData, exc: PydanticSerializationError, schema: EventSchema) -> tuple[str, EventData]:
    """Half a surrogate pair, which models do send, becomes U+FFFD; the rest is the caller's to mend."""
    try:
        text = json.dumps(data.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
        if not _LONE_SURROGATES.search(text):
            raise _not_json(data, exc) from exc
        text = _LONE_SURROGATES.sub("\ufffd", text)
        return text, schema.load(data.kind, schema.version(data.kind), text)
    except (ValueError, RecursionError, JournalError) as again:
        raise _not_json(data, again) from again


def _not_json(data: EventData, why: Exception) -> UsageError:
    return UsageError(
        f"{data.kind!r} cannot be journaled, a value in it is no JSON: {why}.",
        code="journal.not_json",
        hint="Hand over dicts, lists, text, finite numbers, booleans and None.",
        kind=data.kind,
    )


def unpack(head: SessionHead, row: StoredEvent, *, schema: EventSchema = SCHEMA) -> Event:
    """The event of a stored row, after its checksum was found true; its data as of this release.

    What a fork shares is the event of the session it was written in.

    Raises:
        JournalError: ``journal.corrupt``, ``journal.version``.
    """
    seq, at, actor, run, kind, version, mark, text, session = row
    # Of no run and of run 0 the checksum is the same, and one flipped bit makes the one of the other.
    typed = isinstance(text, str) and (run is None or isinstance(run, str))
    if not typed or mark != checksum(session, seq, at, actor, run, version, text, parent=head.parent):
        raise _unproven(head.id, seq, text)
    try:
        forgotten, text = _unmarked(text)
        data: Any = schema.load(kind, version, text)
    except JournalError as exc:
        if exc.code == "journal.corrupt":
            raise corrupt(head.id, seq, exc.message) from exc
        exc.details.update(session=head.id, seq=seq)
        raise
    return Event(seq, session, at, actor, data, run, head.parent, version, forgotten)


def bury(head: SessionHead, row: StoredEvent, data: EventData, *, actor: str, at: float) -> StoredEvent:
    """The row that takes the place of ``row`` when its payload is forgotten at ``at``.

    ``data`` is what is left of it, of the same kind. That it is a tombstone stands in its text, so that no
    store has to know, and its checksum holds it.
    """
    text = f"{_FORGOTTEN}{float(at)!r},{dump_data(data)[1:]}"
    version = SCHEMA.version(data.kind)
    mark = checksum(row.session, row.seq, row.at, actor, row.run, version, text, parent=head.parent)
    return row._replace(actor=actor, version=version, checksum=mark, text=text)


def _unmarked(text: str) -> tuple[float | None, str]:
    """When the payload was forgotten, if it was, and the text without the mark."""
    if not text.startswith(_FORGOTTEN):
        return None, text
    at, _, rest = text[len(_FORGOTTEN) :].partition(",")
    if not _NUMBER.fullmatch(at):
        raise JournalError("its tombstone does not say when", code="journal.corrupt")
    return float(at), "{" + rest


def _unproven(session: str, seq: int, text: object) -> JournalError:
    """The error of an event that is not what its checksum says."""
    if isinstance(text, str) and text.startswith(SEALED):
        return JournalError(
            f"Event {seq} of session {session!r} is sealed.",
            code="journal.key",
            hint="Open the journal with its key: EncryptedJournalStore(store, keys).",
            session=session,
            seq=seq,
        )
    return corrupt(session, seq, "its checksum does not match")


def corrupt(session: str, seq: int, why: str) -> JournalError:
    return JournalError(
        f"Event {seq} of session {session!r} is damaged: {why}.",
        code="journal.corrupt",
        hint="Restore the journal from a backup; other sessions can still be read.",
        session=session,
        seq=seq,
    )

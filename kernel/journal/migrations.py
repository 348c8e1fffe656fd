"""How what an earlier release wrote is read by this one.

Every kind of event has a version of its own. A field that is added with a default needs nothing; any other
change to a kind's data raises its version and brings a migration from the one before::

    VERSIONS["run.started"] = 2

    @SCHEMA.migrates("run.started", 1, 2)
    def what_is_said(data: dict[str, Any]) -> dict[str, Any]:
        data["what"] = data.pop("type")
        return data

Reading walks the chain; nothing in the store is rewritten. The histories in ``tests/corpus`` are read by
every release after the one that wrote them. Kinds and versions are closed per release: what a plugin puts
into an event's free fields is its own, and no migration may look into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from pydantic import ValidationError
from pydantic_core import from_json

from ..errors import JournalError, UsageError
from ..messages import Frozen
from .events import MODELS, EventData

#: From the data of one version, as JSON holds it, to that of a later one; the dict is its own to change.
Migration = Callable[[dict[str, Any]], dict[str, Any]]

#: The version of each kind as it is written today.
VERSIONS: dict[str, int] = dict.fromkeys(MODELS, 1)


class _Step(NamedTuple):
    to: int
    migrate: Migration


class EventSchema:
    """The kinds a release knows, the version of each, and the ways from earlier ones.

    Args:
        models: the data model of every kind, as of its version.
        versions: by kind; 1 where it says nothing.
    """

    def __init__(self, models: Mapping[str, type[Frozen]], versions: Mapping[str, int]) -> None:
        self._models = models
        self._versions = versions
        self._steps: dict[tuple[str, int], _Step] = {}

    def version(self, kind: str) -> int:
        """The version in which events of ``kind`` are written."""
        return self._versions.get(kind, 1)

    def migrates(self, kind: str, from_: int, to: int) -> Callable[[Migration], Migration]:
        """Register a function that brings data of ``kind`` from version ``from_`` to ``to``.

        Raises:
            UsageError: ``journal.migration``, it leads nowhere, or there is one from that version.
        """

        def register(migrate: Migration) -> Migration:
            if kind not in self._models or not 1 <= from_ < to <= self.version(kind):
                raise UsageError(
                    f"A migration of {kind!r} from version {from_} to {to} leads nowhere.",
                    code="journal.migration",
                    hint="Migrate a known kind forward, at most to its version of today.",
                )
            if (kind, from_) in self._steps:
                raise UsageError(
                    f"There are two migrations of {kind!r} from version {from_}.",
                    code="journal.migration",
                    hint="Keep one; a chain has no branches.",
                )
            self._steps[kind, from_] = _Step(to, migrate)
            return migrate

        return register

    def gaps(self) -> list[tuple[str, int]]:
        """Kinds and versions that were once written and cannot be read; empty for a sound release."""
        return [
            (kind, old)
            for kind in self._models
            for old in range(1, self.version(kind))
            if (kind, old) not in self._steps
        ]

    def load(self, kind: str, version: int, text: str) -> EventData:
        """The data of JSON ``text`` that was written as ``version`` of ``kind``.

        Raises:
            JournalError: ``journal.version``, this release cannot read it; ``journal.corrupt``, the text
                is no such event (half a sentence: whoever knows the event's place says the rest).
        """
        model = self._models.get(kind)
        if model is None:
            raise self._unknown(kind, version, text)
        try:
            if version == self.version(kind):
                data = model.model_validate_json(text)
            else:
                data = model.model_validate(self._migrated(kind, version, _object(text)))
        except (ValidationError, ValueError, RecursionError) as exc:
            raise _unreadable(kind, exc) from exc
        if "kind" not in data.model_fields_set:
            raise _unreadable(kind, ValueError("it does not say its kind"))
        return cast("EventData", data)

    def _migrated(self, kind: str, version: int, data: dict[str, Any]) -> dict[str, Any]:
        """``data`` brought to the version of today, step by step."""
        today, at = self.version(kind), version
        while at != today:
            step = self._steps.get((kind, at))
            if step is None:
                raise self._refused(kind, version, at)
            try:
                data, at = step.migrate(data), step.to
            except (LookupError, TypeError, AttributeError) as exc:
                # A migration trusts the shape its version had; damage that survived the checksum has none.
                raise _unreadable(kind, exc) from exc
        return data

    def _refused(self, kind: str, version: int, at: int) -> JournalError:
        today = self.version(kind)
        if version > today:
            why = f"This release knows it up to version {today}."
            hint = "Upgrade kernloom, or open the journal with the release that wrote it."
        else:
            why = f"This release reads version {today}, and nothing leads there from version {at}."
            hint = "Open the journal with a release in between, which can."
        return JournalError(
            f"An event of kind {kind!r}, version {version}, cannot be read. {why}",
            code="journal.version",
            hint=hint,
            kind=kind,
            version=version,
            known=today,
        )

    def _unknown(self, kind: str, version: int, text: str) -> JournalError:
        """A kind of a later release, unless the text itself says otherwise."""
        try:
            said = _object(text).get("kind")
        except ValueError as exc:
            return _unreadable(kind, exc)
        if said != kind:
            return _unreadable(kind, ValueError(f"it says to be {said!r}"))
        return JournalError(
            f"An event of kind {kind!r}, version {version}, cannot be read. "
            f"This release knows {len(self._models)} kinds, and not that one.",
            code="journal.version",
            hint="Upgrade kernloom, or open the journal with the release that wrote it.",
            kind=kind,
            version=version,
            known=None,
        )


def _object(text: str) -> dict[str, Any]:
    value = from_json(text, allow_inf_nan=False)
    if not isinstance(value, dict):
        raise ValueError(f"it is a JSON {type(value).__name__}, not an object")
    return value


def _unreadable(kind: str, why: Exception) -> JournalError:
    words = str(why)
    if isinstance(why, ValidationError):  # without the values, which are nobody's business here
        first = why.errors(include_url=False, include_context=False, include_input=False)[0]
        words = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return JournalError(f"it is no event of kind {kind!r} ({words})", code="journal.corrupt", kind=kind)


#: What this release reads and writes.
SCHEMA = EventSchema(MODELS, VERSIONS)

#: Registers a migration of this release; see :meth:`EventSchema.migrates`.
migrates = SCHEMA.migrates

"""Encryption at rest: a store that wraps another and keeps what was said and done unreadable in it.

What stays readable is what lists are made of: session ids, who opened and forked whom, and of each event
its place, time, run, kind and length. What is sealed is its data, its checksum (which would let a guess be
confirmed) and its actor, since that may be a person's name and no list needs it.

Fernet, of the package ``cryptography`` (extra ``encryption``): AES-128 in CBC mode, with an HMAC-SHA256.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, JournalError, MissingExtraError
from .records import SEALED, corrupt
from .stores import JournalStore, Lease, SessionHead, Snapshot, StoredEvent

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

#: Holds the keys, newest first, with commas between them.
VARIABLE = "KERNLOOM_JOURNAL_KEY"
#: Where a keyring is asked for the same: service and name.
KEYRING = ("kernloom", "journal")

#: How a sealed text ends; it is JSON, as every text in a journal.
_CLOSING = '"}'
#: What stands in the place of a sealed actor.
_NOBODY = ""
_PAGE = 500


def new_key() -> str:
    """A fresh key: 32 random bytes in URL-safe base 64."""
    key: bytes = _fernet().Fernet.generate_key()
    return key.decode()


def load_keys(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The journal's keys, newest first: from ``KERNLOOM_JOURNAL_KEY``, else from the system's keyring.

    The keyring is only asked if the package ``keyring`` is installed.

    Raises:
        ConfigError: ``journal.key_missing``.
    """
    said = env.get(VARIABLE) or _from_keyring() or ""
    keys = tuple(key.strip() for key in said.split(",") if key.strip())
    if not keys:
        raise ConfigError(
            f"The journal is to be encrypted and there is no key: {VARIABLE} is not set.",
            code="journal.key_missing",
            hint=f"Set {VARIABLE}, or keep a key in the keyring under {' / '.join(KEYRING)}.",
            variable=VARIABLE,
        )
    return keys


class EncryptedJournalStore:
    """A :class:`~kernloom.kernel.journal.stores.JournalStore` that seals what it puts into ``store``.

    Args:
        store: keeps it. What was written there before encryption is read as it is, and sealed by
            :meth:`rotate`.
        keys: the first seals, each of them opens: put a new one in front, then :meth:`rotate`.

    ::

        Journal(EncryptedJournalStore(SqliteJournalStore("journal.db"), load_keys()))

    Beyond the codes of the store it raises ``journal.key`` when no key opens what stands there (nothing
    is changed or lost by that), and ``journal.corrupt`` when that is damaged.

    Raises:
        ConfigError: ``journal.key_malformed``.
        MissingExtraError: ``cryptography`` is not installed.
    """

    def __init__(self, store: JournalStore, keys: Sequence[str]) -> None:
        self._store = store
        self._seal = _multi(keys)

    async def append(
        self,
        session: str,
        events: Sequence[StoredEvent],
        *,
        expected_seq: int,
        parent: tuple[str, int] | None = None,
        durable: bool = False,
    ) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        sealed = [self._sealed(event) for event in events]
        await self._store.append(session, sealed, expected_seq=expected_seq, parent=parent, durable=durable)

    async def read(
        self,
        session: str,
        *,
        after: int = 0,
        limit: int | None = None,
        kinds: Collection[str] | None = None,
        newest: bool = False,
    ) -> list[StoredEvent]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        rows = await self._store.read(session, after=after, limit=limit, kinds=kinds, newest=newest)
        return [self._opened(session, row) for row in rows]

    async def sessions(
        self,
        *,
        prefix: str = "",
        parent: str | None = None,
        base: str | None = None,
        roots: bool = False,
        limit: int | None = None,
    ) -> list[SessionHead]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return await self._store.sessions(prefix=prefix, parent=parent, base=base, roots=roots, limit=limit)

    async def fork(self, session: str, *, at: int, of: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._store.fork(session, at=at, of=of)

    async def delete(self, session: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._store.delete(session)

    async def replace(self, session: str, seq: int, event: StoredEvent) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._store.replace(session, seq, self._sealed(event))

    async def compact(self) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._store.compact()

    async def lease(self, session: str, holder: str, *, seconds: float, now: float) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._store.lease(session, holder, seconds=seconds, now=now)

    async def release(self, session: str, holder: str) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        await self._store.release(session, holder)

    async def leases(self) -> list[Lease]:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        return await self._store.leases()

    async def put_snapshot(self, session: str, kind: str, snapshot: Snapshot) -> None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`."""
        sealed = snapshot._replace(text=self._closed(snapshot.text))
        await self._store.put_snapshot(session, kind, sealed)

    async def get_snapshot(self, session: str, kind: str) -> Snapshot | None:
        """See :class:`~kernloom.kernel.journal.stores.JournalStore`; one that no key opens is none."""
        found = await self._store.get_snapshot(session, kind)
        if found is None or not _is_sealed(found.text):
            return found
        text = self._text(found.text)
        return None if text is None else found._replace(text=text)

    async def close(self) -> None:
        """Close the store within."""
        await self._store.close()

    async def rotate(self) -> int:
        """Seal everything anew with the first key, also what was never sealed; give back how many events.

        The other keys are needed no longer afterwards. What was written in clear is gone from the storage
        when this returns. It can be stopped and begun again at any time; nobody else may be at work.

        Raises:
            JournalError: ``journal.key``; what could be opened until then is sealed anew.
        """
        done = 0
        for head in await self._store.sessions():
            start = head.base[1] if head.base else 0
            while rows := await self._store.read(head.id, after=start, limit=_PAGE):
                for row in rows:
                    await self._store.replace(head.id, row.seq, self._sealed(self._opened(head.id, row)))
                start, done = rows[-1].seq, done + len(rows)
        await self._store.compact()
        return done

    def _sealed(self, event: StoredEvent) -> StoredEvent:
        text = self._closed(json.dumps([event.actor, event.checksum, event.text], ensure_ascii=False))
        return event._replace(actor=_NOBODY, checksum=_mark(event.seq, text), text=text)

    def _opened(self, session: str, row: StoredEvent) -> StoredEvent:
        """The row as it was given.

        Its own checksum stands on what is sealed: so a wrong key and damage are two different things.
        """
        if not isinstance(row.text, str) or not _is_sealed(row.text):
            return row
        if row.checksum != _mark(row.seq, row.text):
            raise corrupt(session, row.seq, "its checksum does not match")
        text = self._text(row.text)
        if text is None:
            raise JournalError(
                f"No key given opens event {row.seq} of session {session!r}.",
                code="journal.key",
                hint=f"Set {VARIABLE} to the key it was sealed with; nothing was changed.",
                session=session,
                seq=row.seq,
            )
        actor, checksum, opened = json.loads(text)
        return row._replace(actor=actor, checksum=checksum, text=opened)

    def _closed(self, text: str) -> str:
        return SEALED + self._seal.encrypt(text.encode()).decode() + _CLOSING

    def _text(self, sealed: str) -> str | None:
        """What was sealed; None if no key opens it."""
        try:
            return self._seal.decrypt(sealed[len(SEALED) : -len(_CLOSING)].encode()).decode()
        except _fernet().InvalidToken:
            return None


def _is_sealed(text: str) -> bool:
    return text.startswith(SEALED) and text.endswith(_CLOSING)


def _mark(seq: int, sealed: str) -> str:
    return hashlib.sha256(f"{seq}\x00{sealed}".encode()).hexdigest()[:16]


def _multi(keys: Sequence[str]) -> MultiFernet:
    fernet = _fernet()
    made: list[Any] = []
    for number, key in enumerate(keys, start=1):
        try:
            made.append(fernet.Fernet(key))
        except (ValueError, TypeError):
            raise ConfigError(  # from None: the cause might quote the key
                f"Key {number} of the journal is malformed.",
                code="journal.key_malformed",
                hint="A key is 32 bytes in URL-safe base 64; encryption.new_key() makes one.",
            ) from None
    if not made:
        raise ConfigError("An encrypted journal needs a key.", code="journal.key_missing")
    sealing: MultiFernet = fernet.MultiFernet(made)
    return sealing


def _from_keyring() -> str | None:
    try:
        import keyring
        from keyring.errors import KeyringError, NoKeyringError
    except ImportError:
        return None
    try:
        return keyring.get_password(*KEYRING)
    except NoKeyringError:
        return None
    except KeyringError as exc:
        raise ConfigError(
            f"The keyring does not give out the journal's key: {exc}.",
            code="journal.key_missing",
            hint=f"Unlock it, or set {VARIABLE}.",
            variable=VARIABLE,
        ) from exc


def _fernet() -> Any:
    try:
        from cryptography import fernet
    except ImportError as exc:
        raise MissingExtraError("encryption", "An encrypted journal") from exc
    return fernet

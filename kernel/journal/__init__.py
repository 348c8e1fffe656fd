"""The journal: everything that happens is one event appended to one log.

``events`` names what can happen, ``journal`` opens and appends, ``history`` holds the invariants,
``stores`` is the protocol of what keeps it.
"""

from .diff import Divergence, diff
from .events import Event, EventData
from .history import History
from .journal import Journal, SessionInfo, SessionLog, new_session_id
from .store_memory import InMemoryJournalStore
from .store_postgres import PostgresJournalStore
from .store_sqlite import SqliteJournalStore
from .stores import JournalStore, Lease, SessionHead, Snapshot, StoredEvent
from .transcript import Transcript, messages
from .view import View

__all__ = [
    "Divergence",
    "Event",
    "EventData",
    "History",
    "InMemoryJournalStore",
    "Journal",
    "JournalStore",
    "Lease",
    "PostgresJournalStore",
    "SessionHead",
    "SessionInfo",
    "SessionLog",
    "Snapshot",
    "SqliteJournalStore",
    "StoredEvent",
    "Transcript",
    "View",
    "diff",
    "messages",
    "new_session_id",
]

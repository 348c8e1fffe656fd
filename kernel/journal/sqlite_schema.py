"""The tables of a journal in SQLite, today's and how older ones become them."""

from __future__ import annotations

#: What ``PRAGMA user_version`` says of the tables below.
SCHEMA_VERSION = 2

#: Small, since a commit writes whole pages.
PAGE_SIZE = 2048

_BASES = "CREATE INDEX sessions_base ON sessions (base_session) WHERE base_session IS NOT NULL"
_VIEW = """
CREATE VIEW journal AS
    SELECT id AS session, place & 4294967295 AS seq, datetime(at, 'unixepoch') AS at, actor, run, kind, text
    FROM events JOIN sessions ON number = place >> 32
"""
_BESIDE = """
CREATE TABLE leases (session TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE snapshots (
    session TEXT NOT NULL,
    kind TEXT NOT NULL,
    seq INTEGER NOT NULL,
    version INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (session, kind)
)
"""

# An event's place is its session's number * 2^32 + its seq: one integer key, so that a session lies
# together and an append touches one page of one tree. A session's seq is kept beside its events on
# purpose: should damage take the last of them, it shows. A fork has rows for what it does not share with
# its base only. ``origin`` is the session an event was written in, if that is another than it lies in.
SCHEMA = f"""
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    seq INTEGER NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    parent_session TEXT,
    parent_seq INTEGER,
    base_session TEXT,
    base_seq INTEGER
);
CREATE INDEX sessions_parent ON sessions (parent_session) WHERE parent_session IS NOT NULL;
{_BASES};
CREATE TABLE events (
    place INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    run TEXT,
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    text TEXT NOT NULL,
    origin TEXT
);
{_BESIDE};
{_VIEW}
"""

#: By the version they start from, the statements that lead to the next one.
UPGRADES = {
    1: f"""
ALTER TABLE sessions ADD COLUMN base_session TEXT;
ALTER TABLE sessions ADD COLUMN base_seq INTEGER;
ALTER TABLE events ADD COLUMN origin TEXT;
{_BASES};
{_BESIDE}
"""
}

"""What the PostgreSQL store says to its database: the tables, and every statement.

Placeholders are named; a statement is one snapshot, so that what is shared along a chain of forks is read
whole even while another process moves it.
"""
# ruff: noqa: S608 - what is put together here are constants of this module, never values

from __future__ import annotations

#: What ``version`` in the table ``about`` says of these tables.
SCHEMA_VERSION = 1

# Ids are compared by code point, as everywhere else in a journal. ``base_*`` and ``origin`` are as in the
# SQLite file: a fork has rows for what it does not share with its base only.
SCHEMA = """
CREATE TABLE about (version integer NOT NULL);
INSERT INTO about VALUES (1);
CREATE TABLE sessions (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    seq integer NOT NULL,
    created double precision NOT NULL,
    updated double precision NOT NULL,
    parent_session text COLLATE "C",
    parent_seq integer,
    base_session text COLLATE "C",
    base_seq integer
);
CREATE INDEX sessions_updated ON sessions (updated, id);
CREATE INDEX sessions_parent ON sessions (parent_session) WHERE parent_session IS NOT NULL;
CREATE INDEX sessions_base ON sessions (base_session) WHERE base_session IS NOT NULL;
CREATE TABLE events (
    number bigint NOT NULL,
    seq integer NOT NULL,
    at double precision NOT NULL,
    actor text NOT NULL,
    run text,
    kind text NOT NULL,
    version integer NOT NULL,
    checksum text NOT NULL,
    text text NOT NULL,
    origin text,
    PRIMARY KEY (number, seq)
);
CREATE TABLE leases (
    session text COLLATE "C" PRIMARY KEY,
    holder text NOT NULL,
    until double precision NOT NULL
);
CREATE TABLE snapshots (
    session text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    seq integer NOT NULL,
    version integer NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (session, kind)
);
CREATE VIEW journal AS
    SELECT id AS session, events.seq, to_timestamp(at) AS at, actor, run, kind, text
    FROM events JOIN sessions USING (number)
"""

# Both in one statement, which is one round trip and one transaction. ``durability`` holds for that alone.
_INSERT = """
INSERT INTO events
SELECT target.number, event.*
FROM target,
    (SELECT set_config('synchronous_commit', %(durability)s, true)) AS durability,
    unnest(
        %(seqs)s::integer[], %(ats)s::double precision[], %(actors)s::text[], %(runs)s::text[],
        %(kinds)s::text[], %(versions)s::integer[], %(checksums)s::text[], %(texts)s::text[],
        %(origins)s::text[]
    ) AS event
"""
APPEND = (
    """
WITH target AS (
    UPDATE sessions SET seq = %(end)s, updated = %(updated)s
    WHERE id = %(session)s AND seq = %(expected)s RETURNING number
)"""
    + _INSERT
)
#: There may be a fork that shares nothing; its parent and its base stay.
BEGIN = (
    """
WITH target AS (
    INSERT INTO sessions (id, seq, created, updated, parent_session, parent_seq)
    VALUES (%(session)s, %(end)s, %(created)s, %(updated)s, %(parent_session)s, %(parent_seq)s)
    ON CONFLICT (id) DO UPDATE
        SET seq = excluded.seq, created = excluded.created, updated = excluded.updated
        WHERE sessions.seq = 0
    RETURNING number
)"""
    + _INSERT
)
SEQ = "SELECT seq FROM sessions WHERE id = %(session)s"

#: Where a session's events lie: its own, its base's up to where that was forked, and so on.
_PARTS = """
WITH RECURSIVE part (number, id, base, first, last) AS (
    SELECT number, id, base_session, coalesce(base_seq, 0), 2147483647
    FROM sessions WHERE id = %(session)s
    UNION ALL
    SELECT base.number, base.id, base.base_session, coalesce(base.base_seq, 0), least(first, last)
    FROM part JOIN sessions AS base ON base.id = part.base
)"""
_READ = (
    _PARTS
    + """
SELECT seq, at, actor, run, kind, version, checksum, text, coalesce(origin, id)
FROM part CROSS JOIN LATERAL (
    SELECT * FROM events
    WHERE events.number = part.number AND seq > greatest(first, %(after)s::integer) AND seq <= last
        AND (%(kinds)s::text[] IS NULL OR kind = ANY (%(kinds)s))
    ORDER BY seq {order} LIMIT %(limit)s
) AS event
ORDER BY seq {order} LIMIT %(limit)s"""
)
READ_OLDEST = _READ.format(order="ASC")
READ_NEWEST = _READ.format(order="DESC")

_HEADS = """
SELECT id, seq, created, updated, parent_session, parent_seq, base_session, base_seq FROM sessions
"""
HEAD = f"{_HEADS} WHERE id = %(session)s FOR UPDATE"
HEADS = (
    _HEADS
    + """
WHERE starts_with(id, %(prefix)s)
    AND (%(parent)s::text IS NULL OR parent_session = %(parent)s)
    AND (%(base)s::text IS NULL OR base_session = %(base)s)
    AND (NOT %(roots)s OR parent_session IS NULL)
ORDER BY updated DESC, id DESC LIMIT %(limit)s"""
)
FORK = """
INSERT INTO sessions (id, seq, created, updated, parent_session, parent_seq, base_session, base_seq)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (id) DO NOTHING"""

GONE = "SELECT number, base_session, base_seq FROM sessions WHERE id = %(session)s FOR UPDATE"
FORKS = """
SELECT number, id, base_seq FROM sessions WHERE base_session = %(session)s ORDER BY number FOR UPDATE"""
HAND_OVER = """
UPDATE events SET number = %(taker)s, origin = coalesce(origin, %(session)s)
WHERE number = %(number)s AND seq <= %(most)s"""
REBASE_EARLY = """
UPDATE sessions SET base_session = %(base)s WHERE base_session = %(session)s AND base_seq <= %(shared)s"""
REBASE_TAKER = """
UPDATE sessions SET base_session = %(base)s, base_seq = %(shared)s
WHERE number = %(taker)s AND base_session = %(session)s"""
REBASE_OTHERS = "UPDATE sessions SET base_session = %(name)s WHERE base_session = %(session)s"
DELETE = (
    "DELETE FROM events WHERE number = %(number)s",
    "DELETE FROM sessions WHERE number = %(number)s",
)
DELETE_BESIDE = (
    "DELETE FROM leases WHERE session = %(session)s",
    "DELETE FROM snapshots WHERE session = %(session)s",
)

REPLACE = (
    _PARTS
    + """
UPDATE events SET at = %(at)s, actor = %(actor)s, run = %(run)s, kind = %(kind)s, version = %(version)s,
    checksum = %(checksum)s, text = %(text)s
FROM part
WHERE events.number = part.number AND seq = %(seq)s AND seq > first AND seq <= last
RETURNING part.id"""
)
FORGET_SNAPSHOTS = """
WITH RECURSIVE sharing (id) AS (
    SELECT %(owner)s::text COLLATE "C"
    UNION
    SELECT sessions.id FROM sessions JOIN sharing ON base_session = sharing.id WHERE base_seq >= %(seq)s
)
DELETE FROM snapshots USING sharing WHERE session = sharing.id"""

LEASE = """
INSERT INTO leases VALUES (%(session)s, %(holder)s, %(until)s)
ON CONFLICT (session) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE leases.holder = excluded.holder OR leases.until <= %(now)s"""
RELEASE = "DELETE FROM leases WHERE session = %(session)s AND holder = %(holder)s"
LEASES = "SELECT session, holder, until FROM leases ORDER BY session"
LEASE_OF = "SELECT session, holder, until FROM leases WHERE session = %(session)s"

PUT_SNAPSHOT = """
INSERT INTO snapshots VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (session, kind) DO UPDATE
    SET seq = excluded.seq, version = excluded.version, text = excluded.text"""
GET_SNAPSHOT = "SELECT seq, version, text FROM snapshots WHERE session = %s AND kind = %s"

#: Whatever changes how sessions hang together takes turns; appends do not wait for it.
ALONE = "SELECT pg_advisory_xact_lock(hashtext(current_schema() || '.kernloom'))"
COMPACT = "VACUUM (FULL, ANALYZE) events, sessions, leases, snapshots"

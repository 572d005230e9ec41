//! The tables, and how an older file becomes a newer one.

/// `VSTB`, in the header of every store file: nobody else's database is taken for a device store.
pub const APPLICATION_ID: i64 = 0x5653_5442;

/// Each brings the file from the schema of its index to the next; `user_version` counts those that are done. Never edit one that
/// was released: add another.
///
/// Times are RFC 3339 texts in UTC with milliseconds, of one width, so that they sort. `seq` is given out by updating the one row of `head`
/// in the writing transaction: order of seq is order of commit, without gaps.
pub const MIGRATIONS: [&str; 1] = ["
CREATE TABLE head (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL,
    seq   INTEGER NOT NULL
) STRICT;
INSERT INTO head VALUES (1, lower(hex(randomblob(16))), 0);

CREATE TABLE device (
    id         TEXT PRIMARY KEY,
    name       TEXT,
    user       TEXT,
    team       TEXT,
    tags       TEXT NOT NULL,
    ownership  TEXT,
    onnet      INTEGER,
    state      TEXT NOT NULL,
    state_by   TEXT NOT NULL,
    state_at   TEXT NOT NULL,
    os         TEXT,
    os_version TEXT,
    model      TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    seq        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE device_key (
    kind   TEXT NOT NULL,
    value  TEXT NOT NULL,
    device TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    added  TEXT NOT NULL,
    PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_key_of ON device_key (device);

CREATE TABLE fact (
    device      TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    fact        TEXT NOT NULL,
    source      TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('ok', 'fail')),
    value       TEXT,
    observed_at TEXT NOT NULL,
    expires_at  TEXT,
    PRIMARY KEY (device, fact, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX fact_newest ON fact (source, observed_at);

CREATE TABLE change (
    seq    INTEGER PRIMARY KEY,
    at     TEXT NOT NULL,
    by     TEXT NOT NULL,
    device TEXT NOT NULL,
    before TEXT,
    after  TEXT
) STRICT;
CREATE INDEX change_of ON change (device, seq);
"];

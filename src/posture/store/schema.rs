//! The tables, and how an older file becomes a newer one.

/// `VSTB`, in the header of every store file: nobody else's database is taken for a device store.
pub const APPLICATION_ID: i64 = 0x5653_5442;

/// Each brings the file from the schema of its index to the next; `user_version` counts those that are done. Never edit one that
/// was released: add another.
///
/// Times are RFC 3339 texts in UTC with milliseconds, of one width, so that they sort. `seq` is given out by updating the one row of `head`
/// in the writing transaction: order of seq is order of commit, without gaps.
pub const MIGRATIONS: [&str; 3] = [DEVICES, MEMORY, POLICIES];

const DEVICES: &str = "
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
";

/// What proxies remember of the devices that they saw. High-rate facts: `change` and `head` know nothing of them. `memory.rev` counts the
/// batches, so that processes on one store hear of each other's; `memory.key` is the key of all hashes below. A hash that is absent is 0.
const MEMORY: &str = "
CREATE TABLE memory (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    rev INTEGER NOT NULL,
    key BLOB NOT NULL
) STRICT;
INSERT INTO memory VALUES (1, 0, randomblob(32));

CREATE TABLE baseline (
    device  TEXT PRIMARY KEY,
    class   TEXT,
    seen    TEXT NOT NULL,
    since   TEXT,
    said    TEXT CHECK (said IN ('accepted', 'forgotten')),
    said_by TEXT,
    said_at TEXT,
    epoch   INTEGER NOT NULL,
    rev     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX baseline_rev ON baseline (rev);

CREATE TABLE baseline_stack (
    device TEXT NOT NULL,
    tls    INTEGER NOT NULL,
    h2     INTEGER NOT NULL,
    syn    INTEGER NOT NULL,
    own    INTEGER NOT NULL,
    first  TEXT NOT NULL,
    last   TEXT NOT NULL,
    steady TEXT NOT NULL,
    news   INTEGER NOT NULL,
    stack  TEXT NOT NULL,
    ja4    TEXT,
    opening TEXT,
    signature TEXT,
    PRIMARY KEY (device, tls, h2, syn)
) STRICT, WITHOUT ROWID;

CREATE TABLE blind (
    id          INTEGER PRIMARY KEY,
    stack       TEXT NOT NULL,
    os          TEXT NOT NULL,
    zone        TEXT,
    ja4         TEXT,
    first       TEXT NOT NULL,
    last        TEXT NOT NULL,
    hours       INTEGER NOT NULL,
    connections INTEGER NOT NULL,
    peers       BLOB NOT NULL
) STRICT;
CREATE INDEX blind_last ON blind (last);

CREATE TABLE blind_app (
    blind       INTEGER NOT NULL REFERENCES blind (id) ON DELETE CASCADE,
    app         TEXT NOT NULL,
    owner       TEXT NOT NULL,
    first       TEXT NOT NULL,
    last        TEXT NOT NULL,
    connections INTEGER NOT NULL,
    PRIMARY KEY (blind, app, owner)
) STRICT, WITHOUT ROWID;
";

/// The policies that were in force, the last of them. A text that several have is kept once.
const POLICIES: &str = "
CREATE TABLE policy (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    revision TEXT NOT NULL,
    at       TEXT NOT NULL,
    how      TEXT NOT NULL,
    version  TEXT NOT NULL,
    changed  TEXT
) STRICT;

CREATE TABLE policy_text (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX policy_text_length ON policy_text (length(text));

CREATE TABLE policy_file (
    policy INTEGER NOT NULL REFERENCES policy (id) ON DELETE CASCADE,
    place  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    text   INTEGER NOT NULL REFERENCES policy_text (id),
    PRIMARY KEY (policy, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX policy_file_text ON policy_file (text);
";

-- What each waiting room was told, in order, from a snapshot on; what an admission has beside its numbers; and draws.

-- The row is written at every append, so what is big lies elsewhere.
CREATE TABLE room_logs (
    concert_id BLOB    NOT NULL PRIMARY KEY CHECK (length(concert_id) = 16),
    epoch      INTEGER NOT NULL CHECK (epoch > 0),
    -- Of the snapshot: records follow it without a gap.
    base_seq   INTEGER NOT NULL CHECK (base_seq >= 0),
    last_seq   INTEGER NOT NULL CHECK (last_seq >= base_seq),
    -- Of the last record.
    latest_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE room_snapshots (
    concert_id BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    snapshot   BLOB    NOT NULL,
    PRIMARY KEY (concert_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE room_records (
    concert_id BLOB    NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq >= 1),
    at         INTEGER NOT NULL,
    inputs     BLOB    NOT NULL,
    PRIMARY KEY (concert_id, seq)
) STRICT, WITHOUT ROWID;

ALTER TABLE concerts ADD COLUMN auto INTEGER NOT NULL DEFAULT 0 CHECK (auto = 0 OR auto = 1);
ALTER TABLE concerts ADD COLUMN adaptive INTEGER NOT NULL DEFAULT 0 CHECK (adaptive = 0 OR adaptive = 1);

CREATE TABLE mirrored_draws (
    concert_id BLOB    NOT NULL PRIMARY KEY CHECK (length(concert_id) = 16),
    closed_at  INTEGER NOT NULL,
    -- Places that were given out before.
    base       INTEGER NOT NULL CHECK (base >= 0),
    -- 32 bytes each, ascending.
    keys       BLOB    NOT NULL CHECK (length(keys) % 32 = 0),
    seed       BLOB    NOT NULL CHECK (length(seed) = 32),
    beacon     TEXT
) STRICT, WITHOUT ROWID;

-- Times are INTEGER microseconds since 1970-01-01T00:00:00Z. Ids are UUIDs, BLOB of 16 bytes. Money is INTEGER minor units.
-- What grows without end is appended in order of arrival, its key in an index of its own: a batch then touches few pages. What is
-- looked up by its key and changed in place lies in its key's tree (WITHOUT ROWID).
-- Checks name their alternatives one by one: for an IN of several words SQLite would build a table on every insert.
-- No foreign keys: they would be checked on every hot write; `boxoffice audit` checks what they would.

CREATE TABLE concerts (
    id                   BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    key                  TEXT    NOT NULL UNIQUE,
    name                 TEXT    NOT NULL,
    venue                TEXT    NOT NULL,
    time_zone            TEXT    NOT NULL,
    sale_starts_at       INTEGER,
    mode                 TEXT    NOT NULL CHECK (mode = 'running' OR mode = 'paused' OR mode = 'draining'),
    max_active           INTEGER NOT NULL CHECK (max_active >= 1),
    per_interval_count   INTEGER CHECK (per_interval_count >= 1),
    per_interval_s       INTEGER CHECK (per_interval_s >= 1),
    -- NULL while the admission is the one it was created with.
    admission_changed_at INTEGER,
    CHECK ((per_interval_count IS NULL) = (per_interval_s IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE dates (
    id                BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    concert_id        BLOB    NOT NULL,
    key               TEXT    NOT NULL,
    starts_at         INTEGER NOT NULL,
    ends_at           INTEGER,
    booking_opens_at  INTEGER NOT NULL,
    booking_closes_at INTEGER NOT NULL,
    refund_closes_at  INTEGER NOT NULL,
    seats_total       INTEGER NOT NULL CHECK (seats_total >= 0),
    price_min         INTEGER NOT NULL,
    price_max         INTEGER NOT NULL,
    seats_version     INTEGER NOT NULL,
    UNIQUE (concert_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE seats (
    date_id        BLOB    NOT NULL,
    number         INTEGER NOT NULL CHECK (number >= 1),
    section        TEXT,
    "row"          TEXT,
    grade          TEXT    NOT NULL,
    price          INTEGER NOT NULL CHECK (price >= 1),
    state          TEXT    NOT NULL CHECK (state = 'available' OR state = 'held' OR state = 'sold'),
    reservation_id BLOB,
    held_until     INTEGER,
    version        INTEGER NOT NULL,
    PRIMARY KEY (date_id, number),
    -- I1: the row itself names its one reservation, and a hold its end.
    CHECK ((state = 'available') = (reservation_id IS NULL)),
    CHECK ((state = 'held') = (held_until IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE reservations (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    user_id    BLOB    NOT NULL,
    concert_id BLOB    NOT NULL,
    date_id    BLOB    NOT NULL,
    status     TEXT    NOT NULL CHECK (status = 'held' OR status = 'confirmed' OR status = 'released' OR status = 'expired' OR status = 'cancelled'),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    extensions INTEGER NOT NULL CHECK (extensions >= 0),
    seat_count INTEGER NOT NULL CHECK (seat_count >= 1),
    payment_id BLOB,
    snapshot   TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    CHECK ((status = 'confirmed' OR status = 'cancelled') = (payment_id IS NOT NULL))
) STRICT;

-- What counts against a user's limit.
CREATE INDEX reservations_occupying ON reservations (user_id, date_id) WHERE status IN ('held', 'confirmed');
CREATE INDEX reservations_by_user ON reservations (user_id, id);
CREATE INDEX reservations_due ON reservations (expires_at) WHERE status = 'held';

CREATE TABLE payments (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    reservation_id  BLOB    NOT NULL UNIQUE,
    user_id         BLOB    NOT NULL,
    concert_id      BLOB    NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount >= 0),
    points_spent    INTEGER NOT NULL CHECK (points_spent >= 0),
    points_granted  INTEGER NOT NULL CHECK (points_granted >= 0),
    paid_at         INTEGER NOT NULL,
    refund_amount   INTEGER CHECK (refund_amount BETWEEN 0 AND amount),
    points_restored INTEGER,
    points_taken    INTEGER,
    shortfall       INTEGER,
    refunded_at     INTEGER,
    version         INTEGER NOT NULL,
    CHECK ((refunded_at IS NULL) = (refund_amount IS NULL)),
    CHECK ((refunded_at IS NULL) = (points_restored IS NULL)),
    CHECK ((refunded_at IS NULL) = (points_taken IS NULL)),
    CHECK ((refunded_at IS NULL) = (shortfall IS NULL))
) STRICT;

CREATE INDEX payments_by_user ON payments (user_id, id);
CREATE INDEX payments_by_concert ON payments (concert_id);

CREATE TABLE accounts (
    user_id        BLOB    NOT NULL PRIMARY KEY CHECK (length(user_id) = 16),
    balance        INTEGER NOT NULL CHECK (balance >= 0),
    points         INTEGER NOT NULL CHECK (points >= 0),
    entries        INTEGER NOT NULL CHECK (entries >= 0),
    points_entries INTEGER NOT NULL CHECK (points_entries >= 0),
    version        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- "before" is the balance that the line found: with it the row proves its own sum.
CREATE TABLE entries (
    user_id        BLOB    NOT NULL,
    seq            INTEGER NOT NULL CHECK (seq >= 1),
    id             BLOB    NOT NULL CHECK (length(id) = 16),
    kind           TEXT    NOT NULL CHECK (kind = 'charge' OR kind = 'use' OR kind = 'payment' OR kind = 'refund'),
    amount         INTEGER NOT NULL CHECK (amount <> 0 AND (amount > 0) = (kind = 'charge' OR kind = 'refund')),
    before         INTEGER NOT NULL CHECK (before >= 0),
    balance        INTEGER NOT NULL CHECK (balance >= 0),
    memo           TEXT,
    reservation_id BLOB,
    payment_id     BLOB,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (user_id, seq),
    CHECK (balance = before + amount)
) STRICT;

CREATE TABLE points_entries (
    user_id    BLOB    NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq >= 1),
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    kind       TEXT    NOT NULL CHECK (kind = 'grant' OR kind = 'spend' OR kind = 'restore' OR kind = 'take_back'),
    points     INTEGER NOT NULL CHECK (points <> 0 AND (points > 0) = (kind = 'grant' OR kind = 'restore')),
    before     INTEGER NOT NULL CHECK (before >= 0),
    balance    INTEGER NOT NULL CHECK (balance >= 0),
    payment_id BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, seq),
    -- I9: one grant for each payment, one settlement for each refund.
    UNIQUE (payment_id, kind),
    CHECK (balance = before + points)
) STRICT;

CREATE TABLE replies (
    user_id     BLOB    NOT NULL,
    command_id  BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    body        TEXT    NOT NULL,
    decided_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- I3: one effect for each key of a user.
    PRIMARY KEY (user_id, command_id)
) STRICT;

CREATE INDEX replies_by_expiry ON replies (expires_at);

CREATE TABLE outbox (
    shard       INTEGER NOT NULL CHECK (shard BETWEEN 0 AND 15),
    id          INTEGER NOT NULL,
    payload     TEXT    NOT NULL,
    occurred_at INTEGER NOT NULL,
    PRIMARY KEY (shard, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

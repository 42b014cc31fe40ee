-- Times are timestamptz, microseconds. Ids are uuid. Money and points are bigint, minor units.
-- No foreign keys: they would be checked on every hot write; `boxoffice audit` checks what they would.
-- Each index of a hot table costs every command that writes it, so each is named with what reads it.
-- Hot rows change in place: fillfactor leaves room on the page, and no index covers what changes, so that updates stay HOT.

CREATE TABLE concerts (
    id                   uuid        PRIMARY KEY,
    key                  text        NOT NULL UNIQUE,
    name                 text        NOT NULL,
    venue                text        NOT NULL,
    time_zone            text        NOT NULL,
    sale_starts_at       timestamptz,
    mode                 text        NOT NULL CHECK (mode IN ('running', 'paused', 'draining')),
    max_active           bigint      NOT NULL CHECK (max_active >= 1),
    per_interval_count   bigint      CHECK (per_interval_count >= 1),
    per_interval_s       bigint      CHECK (per_interval_s >= 1),
    -- NULL while the admission is the one it was created with.
    admission_changed_at timestamptz,
    CHECK ((per_interval_count IS NULL) = (per_interval_s IS NULL))
);

CREATE TABLE dates (
    id                uuid        PRIMARY KEY,
    concert_id        uuid        NOT NULL,
    key               text        NOT NULL,
    starts_at         timestamptz NOT NULL,
    ends_at           timestamptz,
    booking_opens_at  timestamptz NOT NULL,
    booking_closes_at timestamptz NOT NULL,
    refund_closes_at  timestamptz NOT NULL,
    seats_total       bigint      NOT NULL CHECK (seats_total >= 0),
    price_min         bigint      NOT NULL,
    price_max         bigint      NOT NULL,
    seats_version     bigint      NOT NULL,
    UNIQUE (concert_id, key)
);

CREATE TABLE seats (
    date_id        uuid        NOT NULL,
    number         integer     NOT NULL CHECK (number >= 1),
    section        text,
    "row"          text,
    grade          text        NOT NULL,
    price          bigint      NOT NULL CHECK (price >= 1),
    state          text        NOT NULL CHECK (state IN ('available', 'held', 'sold')),
    reservation_id uuid,
    held_until     timestamptz,
    version        bigint      NOT NULL,
    -- The transaction that wrote it: what a seat view reads again is what may have changed since its last snapshot.
    changed_xid    xid8        NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (date_id, number),
    -- I1: the row itself names its one reservation, and a hold its end.
    CHECK ((state = 'available') = (reservation_id IS NULL)),
    CHECK ((state = 'held') = (held_until IS NOT NULL))
) WITH (fillfactor = 60);

CREATE TABLE reservations (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL,
    concert_id   uuid        NOT NULL,
    date_id      uuid        NOT NULL,
    status       text        NOT NULL CHECK (status IN ('held', 'confirmed', 'released', 'expired', 'cancelled')),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    extensions   integer     NOT NULL CHECK (extensions >= 0),
    -- Ascending. What a locking statement joins with, without reading the snapshot.
    seats        integer[]   NOT NULL CHECK (cardinality(seats) >= 1),
    payment_id   uuid,
    snapshot     text        NOT NULL,
    version      bigint      NOT NULL,
    CHECK ((status IN ('confirmed', 'cancelled')) = (payment_id IS NOT NULL))
) WITH (fillfactor = 80);

-- What counts against a user's limit.
CREATE INDEX reservations_occupying ON reservations (user_id, date_id) WHERE status IN ('held', 'confirmed');
-- A user's list.
CREATE INDEX reservations_by_user ON reservations (user_id, id);
-- The sweep.
CREATE INDEX reservations_due ON reservations (expires_at) WHERE status = 'held';

CREATE TABLE payments (
    id              uuid        PRIMARY KEY,
    -- I1: one payment for each reservation.
    reservation_id  uuid        NOT NULL UNIQUE,
    user_id         uuid        NOT NULL,
    concert_id      uuid        NOT NULL,
    amount          bigint      NOT NULL CHECK (amount >= 0),
    points_spent    bigint      NOT NULL CHECK (points_spent >= 0),
    points_granted  bigint      NOT NULL CHECK (points_granted >= 0),
    paid_at         timestamptz NOT NULL,
    refund_amount   bigint      CHECK (refund_amount BETWEEN 0 AND amount),
    points_restored bigint,
    points_taken    bigint,
    shortfall       bigint,
    refunded_at     timestamptz,
    version         bigint      NOT NULL,
    CHECK ((refunded_at IS NULL) = (refund_amount IS NULL)),
    CHECK ((refunded_at IS NULL) = (points_restored IS NULL)),
    CHECK ((refunded_at IS NULL) = (points_taken IS NULL)),
    CHECK ((refunded_at IS NULL) = (shortfall IS NULL))
) WITH (fillfactor = 80);

-- A user's list, and a concert's revenue.
CREATE INDEX payments_by_user ON payments (user_id, id);
CREATE INDEX payments_by_concert ON payments (concert_id);

CREATE TABLE accounts (
    user_id        uuid   PRIMARY KEY,
    balance        bigint NOT NULL CHECK (balance >= 0),
    points         bigint NOT NULL CHECK (points >= 0),
    entries        bigint NOT NULL CHECK (entries >= 0),
    points_entries bigint NOT NULL CHECK (points_entries >= 0),
    version        bigint NOT NULL
) WITH (fillfactor = 50);

-- "before" is the balance that the line found: with it the row proves its own sum.
CREATE TABLE entries (
    user_id        uuid        NOT NULL,
    seq            bigint      NOT NULL CHECK (seq >= 1),
    id             uuid        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('charge', 'use', 'payment', 'refund')),
    amount         bigint      NOT NULL CHECK (amount <> 0 AND (amount > 0) = (kind IN ('charge', 'refund'))),
    before         bigint      NOT NULL CHECK (before >= 0),
    balance        bigint      NOT NULL CHECK (balance >= 0),
    memo           text,
    reservation_id uuid,
    payment_id     uuid,
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (user_id, seq),
    CHECK (balance = before + amount)
);

CREATE TABLE points_entries (
    user_id    uuid        NOT NULL,
    seq        bigint      NOT NULL CHECK (seq >= 1),
    id         uuid        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('grant', 'spend', 'restore', 'take_back')),
    points     bigint      NOT NULL CHECK (points <> 0 AND (points > 0) = (kind IN ('grant', 'restore'))),
    before     bigint      NOT NULL CHECK (before >= 0),
    balance    bigint      NOT NULL CHECK (balance >= 0),
    payment_id uuid        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, seq),
    -- I9: one grant for each payment, one settlement for each refund.
    UNIQUE (payment_id, kind),
    CHECK (balance = before + points)
);

CREATE TABLE replies (
    user_id     uuid        NOT NULL,
    command_id  uuid        NOT NULL,
    fingerprint bytea       NOT NULL CHECK (length(fingerprint) = 32),
    body        text        NOT NULL,
    decided_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    -- I3: one effect for each key of a user.
    PRIMARY KEY (user_id, command_id)
);

-- Pruning. Rows come in the order of their time, so a summary of each range of pages tells which are due, and an insert
-- costs next to nothing.
CREATE INDEX replies_by_expiry ON replies USING brin (expires_at) WITH (pages_per_range = 32, autosummarize = on);

-- Ids are given under the locks of what the event is about, so they ascend for each seat and wallet. A transaction draws
-- one number and numbers its events from there: as many as it may have lie between two numbers.
CREATE SEQUENCE outbox_ids INCREMENT BY 1048576;
CREATE TABLE outbox (
    shard       integer     NOT NULL CHECK (shard BETWEEN 0 AND 15),
    id          bigint      NOT NULL,
    payload     text        NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (shard, id)
);

CREATE TABLE secrets (
    name  text  PRIMARY KEY,
    value bytea NOT NULL
);

-- What a waiting room that keeps its places elsewhere, in memory that may be lost, must not forget.

CREATE TABLE mirrored_rooms (
    concert_id  uuid   PRIMARY KEY,
    last_place  bigint NOT NULL CHECK (last_place >= 0),
    promoted_to bigint NOT NULL CHECK (promoted_to >= 0),
    served      bigint NOT NULL,
    expired     bigint NOT NULL,
    "left"      bigint NOT NULL
);

CREATE TABLE mirrored_places (
    concert_id   uuid        NOT NULL,
    entry_id     uuid        NOT NULL,
    user_id      uuid        NOT NULL,
    place        bigint      NOT NULL CHECK (place >= 1),
    promoted_at  timestamptz NOT NULL,
    active_until timestamptz NOT NULL,
    PRIMARY KEY (concert_id, entry_id)
);

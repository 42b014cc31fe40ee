-- What was sent to others while a waiting room was away: payments whose turns are still to be ended. They lie apart, so
-- that what comes after them is sent without them.
CREATE TABLE outbox_rooms (
    shard       INTEGER NOT NULL CHECK (shard BETWEEN 0 AND 15),
    id          INTEGER NOT NULL,
    payload     TEXT    NOT NULL,
    occurred_at INTEGER NOT NULL,
    PRIMARY KEY (shard, id)
) STRICT, WITHOUT ROWID;

-- What a waiting room that keeps its places elsewhere, in memory that may be lost, must not forget.

CREATE TABLE mirrored_rooms (
    concert_id  BLOB    NOT NULL PRIMARY KEY CHECK (length(concert_id) = 16),
    last_place  INTEGER NOT NULL CHECK (last_place >= 0),
    promoted_to INTEGER NOT NULL CHECK (promoted_to >= 0),
    served      INTEGER NOT NULL,
    expired     INTEGER NOT NULL,
    left        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mirrored_places (
    concert_id   BLOB    NOT NULL,
    entry_id     BLOB    NOT NULL CHECK (length(entry_id) = 16),
    user_id      BLOB    NOT NULL,
    place        INTEGER NOT NULL CHECK (place >= 1),
    promoted_at  INTEGER NOT NULL,
    active_until INTEGER NOT NULL,
    PRIMARY KEY (concert_id, entry_id)
) STRICT, WITHOUT ROWID;

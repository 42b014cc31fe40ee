-- What each waiting room was told, in order, from a snapshot on; what an admission has beside its numbers; and draws.

-- Whoever appends, or puts a snapshot in the place of records, locks the row first. It is written at every append, so what is big
-- lies elsewhere.
CREATE TABLE room_logs (
    concert_id uuid        PRIMARY KEY,
    epoch      bigint      NOT NULL CHECK (epoch > 0),
    -- Of the snapshot: records follow it without a gap.
    base_seq   bigint      NOT NULL CHECK (base_seq >= 0),
    last_seq   bigint      NOT NULL CHECK (last_seq >= base_seq),
    -- Of the last record.
    latest_at  timestamptz NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE room_snapshots (
    concert_id uuid   NOT NULL,
    seq        bigint NOT NULL,
    snapshot   bytea  NOT NULL,
    PRIMARY KEY (concert_id, seq)
);
CREATE TABLE room_records (
    concert_id uuid        NOT NULL,
    seq        bigint      NOT NULL CHECK (seq >= 1),
    at         timestamptz NOT NULL,
    inputs     bytea       NOT NULL,
    PRIMARY KEY (concert_id, seq)
);
-- Both are mostly random ids: compressing them costs time and saves nothing.
ALTER TABLE room_snapshots ALTER COLUMN snapshot SET STORAGE EXTERNAL;
ALTER TABLE room_records ALTER COLUMN inputs SET STORAGE EXTERNAL;

-- What follows a position, "records_max" records at most and one's own; that one without its inputs, which whoever appended it has.
-- The snapshot in their place where the position is not in the log. One row at least; all NULL but the instant without a log.
CREATE FUNCTION room_read(of_concert uuid, clock_offset_us bigint, since_epoch bigint, since_seq bigint, records_max bigint, own_seq bigint)
RETURNS TABLE (in_epoch bigint, from_seq bigint, instant timestamptz, base bytea, record_seq bigint, record_at timestamptz, record_inputs bytea)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT l.epoch, l.base_seq, greatest(l.latest_at, clock_timestamp() + clock_offset_us * interval '1 microsecond'),
           s.snapshot, r.seq, r.at, r.inputs
    FROM (SELECT 1) AS one
    LEFT JOIN LATERAL (SELECT *, g.epoch = since_epoch AND since_seq BETWEEN g.base_seq AND g.last_seq AS inside
                       FROM room_logs g WHERE g.concert_id = of_concert) l ON true
    LEFT JOIN room_snapshots s ON NOT l.inside AND s.concert_id = of_concert AND s.seq = l.base_seq
    LEFT JOIN LATERAL (SELECT q.seq, q.at, CASE WHEN q.seq IS DISTINCT FROM own_seq THEN q.inputs END AS inputs
                       FROM room_records q WHERE l.inside AND q.concert_id = of_concert AND q.seq > since_seq
                       ORDER BY q.seq LIMIT records_max + CASE WHEN own_seq IS NULL THEN 0 ELSE 1 END) r ON true
    ORDER BY r.seq;
END $$;

-- Appends a record unless there are more than "records_max" to be read first; then as room_read. The clock is read under the lock.
CREATE FUNCTION room_exchange(of_concert uuid, clock_offset_us bigint, since_epoch bigint, since_seq bigint, records_max bigint, told bytea)
RETURNS TABLE (in_epoch bigint, from_seq bigint, instant timestamptz, base bytea, record_seq bigint, record_at timestamptz, record_inputs bytea)
LANGUAGE plpgsql AS $$
DECLARE
    log    room_logs%ROWTYPE;
    own    bigint;
    own_at timestamptz;
BEGIN
    SELECT * INTO log FROM room_logs g WHERE g.concert_id = of_concert FOR NO KEY UPDATE;
    IF log.epoch = since_epoch AND since_seq BETWEEN log.base_seq AND log.last_seq AND log.last_seq - since_seq <= records_max THEN
        own := log.last_seq + 1;
        own_at := greatest(log.latest_at, clock_timestamp() + clock_offset_us * interval '1 microsecond');
        INSERT INTO room_records (concert_id, seq, at, inputs) VALUES (of_concert, own, own_at, told);
        UPDATE room_logs g SET last_seq = own, latest_at = own_at WHERE g.concert_id = of_concert;
    END IF;
    RETURN QUERY SELECT * FROM room_read(of_concert, clock_offset_us, since_epoch, since_seq, records_max, own);
END $$;

-- Whether there was none.
CREATE FUNCTION room_begin(of_concert uuid, clock_offset_us bigint, new_epoch bigint, first_snapshot bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO room_logs (concert_id, epoch, base_seq, last_seq, latest_at)
    VALUES (of_concert, new_epoch, 0, 0, clock_timestamp() + clock_offset_us * interval '1 microsecond')
    ON CONFLICT (concert_id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO room_snapshots (concert_id, seq, snapshot) VALUES (of_concert, 0, first_snapshot);
    RETURN true;
END $$;

-- Whether the record that the snapshot ends with was there. The snapshot is written before the log's row is locked, so that
-- appends wait only for the records to go.
CREATE FUNCTION room_compact(of_concert uuid, of_epoch bigint, upto bigint, new_snapshot bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM room_logs g WHERE g.concert_id = of_concert AND g.epoch = of_epoch AND g.base_seq < upto AND g.last_seq >= upto)
    THEN
        RETURN false;
    END IF;
    INSERT INTO room_snapshots (concert_id, seq, snapshot) VALUES (of_concert, upto, new_snapshot) ON CONFLICT (concert_id, seq) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE room_logs g SET base_seq = upto
    WHERE g.concert_id = of_concert AND g.epoch = of_epoch AND g.base_seq < upto AND g.last_seq >= upto;
    IF NOT FOUND THEN
        -- Another one came further meanwhile.
        DELETE FROM room_snapshots s WHERE s.concert_id = of_concert AND s.seq = upto;
        RETURN false;
    END IF;
    DELETE FROM room_snapshots s WHERE s.concert_id = of_concert AND s.seq < upto;
    DELETE FROM room_records r WHERE r.concert_id = of_concert AND r.seq <= upto;
    RETURN true;
END $$;

-- Plans are made once for each connection, often while the tables are still empty, and kept: only those that go by index are
-- allowed.
ALTER FUNCTION room_read SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION room_exchange SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION room_compact SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;

ALTER TABLE concerts ADD COLUMN auto boolean NOT NULL DEFAULT false, ADD COLUMN adaptive boolean NOT NULL DEFAULT false;

CREATE TABLE mirrored_draws (
    concert_id uuid        PRIMARY KEY,
    closed_at  timestamptz NOT NULL,
    -- Places that were given out before.
    base       bigint      NOT NULL CHECK (base >= 0),
    -- 32 bytes each, ascending.
    keys       bytea       NOT NULL CHECK (length(keys) % 32 = 0),
    seed       bytea       NOT NULL CHECK (length(seed) = 32),
    beacon     text
);
ALTER TABLE mirrored_draws ALTER COLUMN keys SET STORAGE EXTERNAL;

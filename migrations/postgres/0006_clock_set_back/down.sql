CREATE OR REPLACE FUNCTION room_read(of_concert uuid, clock_offset_us bigint, since_epoch bigint, since_seq bigint, records_max bigint, own_seq bigint)
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

CREATE OR REPLACE FUNCTION room_exchange(of_concert uuid, clock_offset_us bigint, since_epoch bigint, since_seq bigint, records_max bigint, told bytea)
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

ALTER FUNCTION room_read SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION room_exchange SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;

CREATE OR REPLACE FUNCTION claim_outbox_shards(me uuid, read_at timestamptz, lease interval) RETURNS SETOF integer LANGUAGE plpgsql AS $$
DECLARE
    share integer;
BEGIN
    LOCK TABLE relays IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM relays WHERE lives_until <= read_at AND id <> me;
    INSERT INTO relays VALUES (me, read_at + lease) ON CONFLICT (id) DO UPDATE SET lives_until = EXCLUDED.lives_until;
    SELECT ceil(16.0 / count(*)) INTO share FROM relays;
    UPDATE outbox_shards SET relay = NULL WHERE relay IS NOT NULL AND relay NOT IN (SELECT id FROM relays);
    UPDATE outbox_shards SET relay = NULL
        WHERE shard IN (SELECT shard FROM outbox_shards WHERE relay = me ORDER BY shard OFFSET share);
    UPDATE outbox_shards SET relay = me
        WHERE shard IN (SELECT shard FROM outbox_shards WHERE relay IS NULL ORDER BY shard
                        LIMIT share - (SELECT count(*) FROM outbox_shards WHERE relay = me));
    RETURN QUERY SELECT shard FROM outbox_shards WHERE relay = me ORDER BY shard;
END
$$;

DROP FUNCTION room_time;

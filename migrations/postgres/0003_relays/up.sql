-- Who relays what: the shards of the outbox are shared out among the instances that live.

-- An instance that relays, until when unless it says so again.
CREATE TABLE relays (
    id          uuid        PRIMARY KEY,
    lives_until timestamptz NOT NULL
);

-- Whose a shard is. A row names nobody once its relay is gone.
CREATE TABLE outbox_shards (
    shard integer PRIMARY KEY CHECK (shard BETWEEN 0 AND 15),
    relay uuid
);
INSERT INTO outbox_shards (shard) SELECT generate_series(0, 15);

-- The relay lives for as long as the lease; what is its own then: what it had, less what exceeds an equal share, and free
-- shards up to that share. One claim at a time: each is a few rows, a few times a minute.
CREATE FUNCTION claim_outbox_shards(me uuid, read_at timestamptz, lease interval) RETURNS SETOF integer LANGUAGE plpgsql AS $$
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

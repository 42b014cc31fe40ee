-- The waiting rooms kept in the ledger's own database.
--
-- Every change of a room is one call of queue_apply or queue_tick: one statement, which is its own transaction, takes the
-- room's row first and gives it back when it is flushed. The row is never held while an instance is on its way to say what
-- comes next, so one that is paused or gone keeps nobody waiting; and each statement of a function sees what was committed
-- before it, so what is read under the lock is what is there.

-- One row for each room: what it obeys, and counts that spare everybody from counting. The row is also the room's mutex.
CREATE TABLE queue_rooms (
    concert_id         uuid        PRIMARY KEY,
    sale_starts_at     timestamptz,
    mode               text        NOT NULL CHECK (mode IN ('running', 'paused', 'draining')),
    max_active         bigint      NOT NULL CHECK (max_active >= 1),
    per_interval_count bigint      CHECK (per_interval_count >= 1),
    per_interval_s     bigint      CHECK (per_interval_s >= 1),
    -- As the last tick found it.
    sold_out           boolean     NOT NULL DEFAULT false,
    -- The latest instant at which it changed: its time never goes back.
    latest_at          timestamptz NOT NULL,
    last_place         bigint      NOT NULL DEFAULT 0 CHECK (last_place >= 0),
    -- Nobody waits at a place up to here.
    promoted_to        bigint      NOT NULL DEFAULT 0 CHECK (promoted_to <= last_place),
    waiting            bigint      NOT NULL DEFAULT 0 CHECK (waiting BETWEEN 0 AND last_place - promoted_to),
    -- Entries whose row says active, those among them whose turn is over.
    active             bigint      NOT NULL DEFAULT 0 CHECK (active >= 0),
    served             bigint      NOT NULL DEFAULT 0,
    expired            bigint      NOT NULL DEFAULT 0,
    "left"             bigint      NOT NULL DEFAULT 0,
    CHECK ((per_interval_count IS NULL) = (per_interval_s IS NULL))
) WITH (fillfactor = 20);

CREATE TABLE queue_entries (
    concert_id   uuid        NOT NULL,
    place        bigint      NOT NULL CHECK (place >= 1),
    id           uuid        NOT NULL UNIQUE,
    user_id      uuid        NOT NULL,
    status       text        NOT NULL CHECK (status IN ('waiting', 'active', 'done', 'expired', 'left')),
    joined_at    timestamptz NOT NULL,
    promoted_at  timestamptz,
    active_until timestamptz,
    ended_at     timestamptz,
    PRIMARY KEY (concert_id, place),
    CHECK (status <> 'active' OR (promoted_at IS NOT NULL AND active_until IS NOT NULL)),
    CHECK ((status IN ('done', 'expired', 'left')) = (ended_at IS NOT NULL))
) WITH (fillfactor = 80);

-- One live place for each user and concert (I4's other half: nobody stands in line twice).
CREATE UNIQUE INDEX queue_entries_live ON queue_entries (concert_id, user_id) WHERE status IN ('waiting', 'active');
-- Turns, by their end.
CREATE INDEX queue_entries_active ON queue_entries (concert_id, active_until) WHERE status = 'active';
-- Pruning.
CREATE INDEX queue_entries_ended ON queue_entries (concert_id, ended_at) WHERE ended_at IS NOT NULL;

-- The places that were left by whoever waited there, a bit for each, 1,024 to a row: bit 0 of block 0 is place 1. How many
-- wait before a place is then a subtraction and the sum of a few bit counts, however many wait.
CREATE TABLE queue_gone (
    concert_id uuid      NOT NULL,
    block      bigint    NOT NULL CHECK (block >= 0),
    places     bit(1024) NOT NULL,
    PRIMARY KEY (concert_id, block)
) WITH (fillfactor = 50);

-- How many were promoted when, for as long as a rate may ask for it.
CREATE TABLE queue_promotions (
    concert_id uuid        NOT NULL,
    at         timestamptz NOT NULL,
    promoted   bigint      NOT NULL CHECK (promoted >= 1),
    PRIMARY KEY (concert_id, at)
);

-- How many were promoted after the window began, that instant itself excluded.
CREATE FUNCTION queue_promoted_within(of_concert uuid, at_instant timestamptz, window_s bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(p.promoted), 0) FROM queue_promotions p
            WHERE p.concert_id = of_concert AND p.at > at_instant - window_s * interval '1 second');
END $$;

-- Entries as they are read: a row for each one asked for, in that order, with NULL in it for one that is not known; none
-- at all without a room. The last four columns are the room's.
CREATE FUNCTION queue_look(of_concert uuid, not_before timestamptz, asked uuid[], rate_window_s bigint)
RETURNS TABLE (entry uuid, holder uuid, at_place bigint, state text, until timestamptz, ahead bigint,
               instant timestamptz, sale timestamptz, nothing_left boolean, admitted bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    room      queue_rooms%ROWTYPE;
    at_instant timestamptz;
    admitted_lately bigint;
BEGIN
    SELECT * INTO room FROM queue_rooms r WHERE r.concert_id = of_concert;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    at_instant := greatest(room.latest_at, not_before);
    admitted_lately := queue_promoted_within(of_concert, at_instant, rate_window_s);
    RETURN QUERY
        SELECT e.id, e.user_id, e.place, e.status, e.active_until,
               CASE WHEN e.status = 'waiting' THEN e.place - 1 - room.promoted_to - gone.before END,
               at_instant, room.sale_starts_at, room.sold_out, admitted_lately
        FROM unnest(asked) WITH ORDINALITY AS a (id, nth)
        LEFT JOIN LATERAL (SELECT * FROM queue_entries q WHERE q.id = a.id OFFSET 0) e ON e.concert_id = of_concert
        LEFT JOIN LATERAL (
            -- Bits from promoted_to up to, and without, the entry's own.
            SELECT coalesce(sum(bit_count(substring(g.places
                       FROM greatest(room.promoted_to - g.block * 1024, 0)::integer + 1
                       FOR (least(e.place - 1 - g.block * 1024, 1024) - greatest(room.promoted_to - g.block * 1024, 0))::integer))), 0)::bigint
                   AS before
            FROM queue_gone g
            WHERE g.concert_id = of_concert AND e.status = 'waiting' AND e.place - 1 > room.promoted_to
              AND g.block BETWEEN room.promoted_to / 1024 AND (e.place - 2) / 1024) gone ON true
        ORDER BY a.nth;
END $$;

-- Opens a room, or brings its start of sale up to date. What an operator set, here or while another kind of room was in use,
-- stands in "concerts"; the terms count while nobody has. Nothing is written, nor locked, when all is as it should be.
CREATE FUNCTION queue_open(of_concert uuid, sale timestamptz, terms_mode text, terms_max_active bigint, terms_count bigint, terms_s bigint,
                           clock_offset_us bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    own queue_rooms%ROWTYPE;
BEGIN
    IF EXISTS (
        SELECT 1 FROM queue_rooms r LEFT JOIN concerts c ON c.id = r.concert_id AND c.admission_changed_at IS NOT NULL
        WHERE r.concert_id = of_concert AND r.sale_starts_at IS NOT DISTINCT FROM sale
          AND (c.id IS NULL OR (r.mode, r.max_active, r.per_interval_count, r.per_interval_s)
                               IS NOT DISTINCT FROM (c.mode, c.max_active, c.per_interval_count, c.per_interval_s)))
    THEN
        RETURN;
    END IF;
    INSERT INTO queue_rooms (concert_id, sale_starts_at, mode, max_active, per_interval_count, per_interval_s, latest_at)
    VALUES (of_concert, sale, terms_mode, terms_max_active, terms_count, terms_s,
            clock_timestamp() + clock_offset_us * interval '1 microsecond')
    ON CONFLICT (concert_id) DO NOTHING;
    -- With the row in hand: whoever changes an admission has it too.
    SELECT * INTO own FROM queue_rooms r WHERE r.concert_id = of_concert FOR NO KEY UPDATE;
    SELECT c.mode, c.max_active, c.per_interval_count, c.per_interval_s
    INTO own.mode, own.max_active, own.per_interval_count, own.per_interval_s
    FROM concerts c WHERE c.id = of_concert AND c.admission_changed_at IS NOT NULL;
    IF NOT FOUND THEN
        UPDATE queue_rooms r SET sale_starts_at = sale WHERE r.concert_id = of_concert;
    ELSE
        UPDATE queue_rooms r
        SET sale_starts_at = sale, mode = own.mode, max_active = own.max_active, per_interval_count = own.per_interval_count,
            per_interval_s = own.per_interval_s
        WHERE r.concert_id = of_concert;
    END IF;
END $$;

-- Who leaves, who has paid, who comes: each of them in one step, in that order, at one instant. Answers as queue_look does,
-- for the live entry of each of "joining", NULL for one who is not let in. "leaving" are entries, "paying" and "joining"
-- users; "joining" has nobody twice, and "fresh" names the entries that begin.
CREATE FUNCTION queue_apply(of_concert uuid, clock_offset_us bigint, not_before timestamptz, leaving uuid[],
                            paying uuid[], paid_at timestamptz[], joining uuid[], fresh uuid[], rate_window_s bigint)
RETURNS TABLE (entry uuid, holder uuid, at_place bigint, state text, until timestamptz, ahead bigint,
               instant timestamptz, sale timestamptz, nothing_left boolean, admitted bigint)
LANGUAGE plpgsql AS $$
DECLARE
    room       queue_rooms%ROWTYPE;
    at_instant timestamptz;
    -- Places of entries that end.
    leaving_from bigint[];
    paid_for   bigint[];
    overstayed bigint[] := '{}';
    ended      record;
    began      bigint := 0;
    live       uuid[];
BEGIN
    SELECT * INTO room FROM queue_rooms r WHERE r.concert_id = of_concert FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    at_instant := greatest(room.latest_at, not_before, clock_timestamp() + clock_offset_us * interval '1 microsecond');

    leaving_from := ARRAY(
        SELECT e.place FROM unnest(leaving) AS l (id)
        CROSS JOIN LATERAL (SELECT q.concert_id, q.place, q.status FROM queue_entries q WHERE q.id = l.id OFFSET 0) e
        WHERE e.concert_id = of_concert AND e.status IN ('waiting', 'active'));
    paid_for := ARRAY(
        SELECT e.place FROM unnest(paying, paid_at) AS p (user_id, at)
        CROSS JOIN LATERAL (SELECT q.place, q.status, q.active_until, q.promoted_at FROM queue_entries q
                            WHERE q.concert_id = of_concert AND q.user_id = p.user_id AND q.status IN ('waiting', 'active') OFFSET 0) e
        WHERE e.status = 'active' AND e.active_until > at_instant AND e.promoted_at <= p.at AND e.place <> ALL (leaving_from));
    -- A turn that is over by the clock ends before its user's new entry begins.
    IF room.mode <> 'draining' THEN
        overstayed := ARRAY(
            SELECT e.place FROM unnest(joining) AS j (user_id)
            CROSS JOIN LATERAL (SELECT q.place, q.status, q.active_until FROM queue_entries q
                                WHERE q.concert_id = of_concert AND q.user_id = j.user_id AND q.status IN ('waiting', 'active') OFFSET 0) e
            WHERE e.status = 'active' AND e.active_until <= at_instant AND e.place <> ALL (leaving_from));
    END IF;
    WITH over AS (
        UPDATE queue_entries e
        SET status = CASE WHEN e.status = 'active' AND e.active_until <= at_instant THEN 'expired' ELSE 'left' END, ended_at = at_instant
        WHERE e.concert_id = of_concert AND e.place = ANY (leaving_from)
        RETURNING e.place, e.status, e.promoted_at IS NOT NULL AS had_turn
    ), gone AS (
        INSERT INTO queue_gone AS g (concert_id, block, places)
        SELECT of_concert, (o.place - 1) / 1024, bit_or(set_bit(0::bit(1024), ((o.place - 1) % 1024)::integer, 1))
        FROM over o WHERE NOT o.had_turn GROUP BY 2
        ON CONFLICT (concert_id, block) DO UPDATE SET places = g.places | excluded.places
    ), paid AS (
        UPDATE queue_entries e SET status = 'done', ended_at = at_instant
        WHERE e.concert_id = of_concert AND e.place = ANY (paid_for)
        RETURNING e.id
    ), late AS (
        UPDATE queue_entries e SET status = 'expired', ended_at = at_instant
        WHERE e.concert_id = of_concert AND e.place = ANY (overstayed)
        RETURNING e.id
    )
    SELECT (SELECT count(*) FROM over o WHERE NOT o.had_turn) AS waited,
           (SELECT count(*) FROM over o WHERE o.status = 'left') AS went,
           (SELECT count(*) FROM over o WHERE o.status = 'expired') + (SELECT count(*) FROM late) AS expired,
           (SELECT count(*) FROM paid) AS served,
           (SELECT count(*) FROM over o WHERE o.had_turn) + (SELECT count(*) FROM late) + (SELECT count(*) FROM paid) AS turns
    INTO ended;

    IF room.mode <> 'draining' THEN
        INSERT INTO queue_entries (concert_id, place, id, user_id, status, joined_at)
        SELECT of_concert, room.last_place + row_number() OVER (ORDER BY j.nth), j.id, j.user_id, 'waiting', at_instant
        FROM unnest(joining, fresh) WITH ORDINALITY AS j (user_id, id, nth)
        LEFT JOIN LATERAL (SELECT q.id FROM queue_entries q
                           WHERE q.concert_id = of_concert AND q.user_id = j.user_id AND q.status IN ('waiting', 'active') OFFSET 0) e ON true
        WHERE e.id IS NULL;
        GET DIAGNOSTICS began = ROW_COUNT;
    END IF;

    IF began + ended.waited + ended.turns > 0 THEN
        UPDATE queue_rooms r
        SET last_place = r.last_place + began, waiting = r.waiting + began - ended.waited, active = r.active - ended.turns,
            served = r.served + ended.served, expired = r.expired + ended.expired, "left" = r."left" + ended.went, latest_at = at_instant
        WHERE r.concert_id = of_concert;
    END IF;
    IF cardinality(joining) > 0 THEN
        SELECT array_agg(e.id ORDER BY j.nth) INTO live
        FROM unnest(joining) WITH ORDINALITY AS j (user_id, nth)
        LEFT JOIN LATERAL (SELECT q.id FROM queue_entries q
                           WHERE q.concert_id = of_concert AND q.user_id = j.user_id AND q.status IN ('waiting', 'active')
                             AND (q.status = 'waiting' OR q.active_until > at_instant) OFFSET 0) e ON true;
        RETURN QUERY SELECT * FROM queue_look(of_concert, at_instant, live, rate_window_s);
    ELSE
        RETURN QUERY SELECT NULL::uuid, NULL::uuid, NULL::bigint, NULL::text, NULL::timestamptz, NULL::bigint,
                            at_instant, room.sale_starts_at, room.sold_out, 0::bigint;
    END IF;
END $$;

-- How many may go at an instant: the smallest of what every policy allows. "turns" are those that run.
CREATE FUNCTION queue_promotable(room queue_rooms, at_instant timestamptz, turns bigint, obtainable bigint, linked boolean, promotions_max bigint)
RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF room.waiting = 0 OR room.mode = 'paused' OR obtainable = 0 OR room.sale_starts_at > at_instant THEN
        RETURN 0;
    END IF;
    -- What is NULL does not limit.
    RETURN greatest(0, least(
        room.waiting,
        promotions_max,
        room.max_active - turns,
        CASE WHEN linked THEN obtainable - turns END,
        room.per_interval_count - queue_promoted_within(room.concert_id, at_instant, room.per_interval_s)));
END $$;

-- Ends turns that are over, promotes whoever may go, forgets what has been over for long: each of them up to "steps_max".
-- Nothing is written when there is nothing to do. No row without a room.
CREATE FUNCTION queue_tick(of_concert uuid, clock_offset_us bigint, not_before timestamptz, obtainable bigint, linked boolean,
                           active_ttl_s bigint, promotions_max bigint, steps_max bigint, ended_kept_s bigint, paces_kept_s bigint)
RETURNS TABLE (promoted bigint, expired bigint, instant timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    room       queue_rooms%ROWTYPE;
    at_instant timestamptz;
    over       bigint;
    ended      bigint := 0;
    going      bigint;
    gone_to    bigint;
BEGIN
    -- Looked at without the lock first: most ticks find nothing, and a lock is a write.
    SELECT * INTO room FROM queue_rooms r WHERE r.concert_id = of_concert;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    at_instant := greatest(room.latest_at, not_before, clock_timestamp() + clock_offset_us * interval '1 microsecond');
    over := (SELECT count(*) FROM queue_entries e WHERE e.concert_id = of_concert AND e.status = 'active' AND e.active_until <= at_instant);
    IF over = 0 AND room.sold_out = (obtainable = 0)
        AND queue_promotable(room, at_instant, room.active - over, obtainable, linked, promotions_max) = 0
        AND NOT EXISTS (SELECT 1 FROM queue_entries e
                        WHERE e.concert_id = of_concert AND e.ended_at < at_instant - ended_kept_s * interval '1 second')
    THEN
        RETURN QUERY SELECT 0::bigint, 0::bigint, at_instant;
        RETURN;
    END IF;

    SELECT * INTO room FROM queue_rooms r WHERE r.concert_id = of_concert FOR NO KEY UPDATE;
    at_instant := greatest(room.latest_at, at_instant, clock_timestamp() + clock_offset_us * interval '1 microsecond');
    over := (SELECT count(*) FROM queue_entries e WHERE e.concert_id = of_concert AND e.status = 'active' AND e.active_until <= at_instant);
    IF over > 0 THEN
        UPDATE queue_entries e SET status = 'expired', ended_at = at_instant
        WHERE e.concert_id = of_concert AND e.place IN (
            SELECT o.place FROM queue_entries o WHERE o.concert_id = of_concert AND o.status = 'active' AND o.active_until <= at_instant
            ORDER BY o.active_until LIMIT steps_max);
        GET DIAGNOSTICS ended = ROW_COUNT;
    END IF;
    -- Turns that are over count no more, whether or not this step came as far as writing them.
    going := queue_promotable(room, at_instant, room.active - over, obtainable, linked, promotions_max);
    gone_to := room.promoted_to;
    IF going > 0 THEN
        WITH next AS (
            SELECT n.place FROM queue_entries n
            WHERE n.concert_id = of_concert AND n.place > room.promoted_to AND n.status = 'waiting'
            ORDER BY n.place LIMIT going
        ), went AS (
            UPDATE queue_entries e SET status = 'active', promoted_at = at_instant, active_until = at_instant + active_ttl_s * interval '1 second'
            FROM next WHERE e.concert_id = of_concert AND e.place = next.place
            RETURNING e.place
        )
        SELECT max(place), count(*) INTO STRICT gone_to, going FROM went;
        INSERT INTO queue_promotions AS p (concert_id, at, promoted) VALUES (of_concert, at_instant, going)
        ON CONFLICT ON CONSTRAINT queue_promotions_pkey DO UPDATE SET promoted = p.promoted + excluded.promoted;
        DELETE FROM queue_promotions p WHERE p.concert_id = of_concert AND p.at < at_instant - paces_kept_s * interval '1 second';
        DELETE FROM queue_gone g WHERE g.concert_id = of_concert AND (g.block + 1) * 1024 <= gone_to;
    END IF;
    UPDATE queue_rooms r
    SET sold_out = (obtainable = 0), latest_at = at_instant, promoted_to = gone_to, waiting = r.waiting - going,
        active = r.active - ended + going, expired = r.expired + ended
    WHERE r.concert_id = of_concert;
    DELETE FROM queue_entries e WHERE e.concert_id = of_concert AND e.place IN (
        SELECT o.place FROM queue_entries o WHERE o.concert_id = of_concert AND o.ended_at < at_instant - ended_kept_s * interval '1 second'
        ORDER BY o.ended_at LIMIT steps_max);
    RETURN QUERY SELECT going, ended, at_instant;
END $$;

-- The mirror of a room that keeps its places elsewhere. Its row comes first, so that of two instances one waits for the other,
-- and sees what it wrote. An entry that began and ended in one step has ended.
CREATE FUNCTION mirror_save(of_concert uuid, mark_last_place bigint, mark_promoted_to bigint, mark_served bigint, mark_expired bigint,
                            mark_left bigint, began uuid[], began_users uuid[], began_places bigint[], began_promoted timestamptz[],
                            began_until timestamptz[], ended uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO mirrored_rooms AS m (concert_id, last_place, promoted_to, served, expired, "left")
    VALUES (of_concert, mark_last_place, mark_promoted_to, mark_served, mark_expired, mark_left)
    ON CONFLICT (concert_id) DO UPDATE
    SET last_place = greatest(m.last_place, excluded.last_place), promoted_to = greatest(m.promoted_to, excluded.promoted_to),
        served = greatest(m.served, excluded.served), expired = greatest(m.expired, excluded.expired),
        "left" = greatest(m."left", excluded."left");
    INSERT INTO mirrored_places AS m (concert_id, entry_id, user_id, place, promoted_at, active_until)
    SELECT DISTINCT ON (b.entry_id) of_concert, b.entry_id, b.user_id, b.place, b.promoted_at, b.active_until
    FROM unnest(began, began_users, began_places, began_promoted, began_until)
         WITH ORDINALITY AS b (entry_id, user_id, place, promoted_at, active_until, nth)
    ORDER BY b.entry_id, b.nth DESC
    ON CONFLICT (concert_id, entry_id) DO UPDATE SET active_until = excluded.active_until;
    DELETE FROM mirrored_places m WHERE m.concert_id = of_concert AND m.entry_id = ANY (ended);
END $$;

-- Plans are made once for each connection, often while the tables are still empty, and kept: only those that go by index and
-- loop over the arrays are allowed, or a plan made early would read whole rooms later.
ALTER FUNCTION queue_look SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION queue_apply SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION queue_tick SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_bitmapscan = off SET jit = off SET plan_cache_mode = force_generic_plan;

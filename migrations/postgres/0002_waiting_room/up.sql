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

DROP FUNCTION mirror_save, queue_tick, queue_promotable, queue_apply, queue_open, queue_look, queue_promoted_within;
DROP TABLE queue_promotions, queue_gone, queue_entries, queue_rooms;

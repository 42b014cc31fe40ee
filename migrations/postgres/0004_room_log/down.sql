DROP TABLE mirrored_draws;
ALTER TABLE concerts DROP COLUMN adaptive, DROP COLUMN auto;
DROP FUNCTION room_compact, room_begin, room_exchange, room_read;
DROP TABLE room_records, room_snapshots, room_logs;

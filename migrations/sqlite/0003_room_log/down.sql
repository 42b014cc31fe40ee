DROP TABLE mirrored_draws;
ALTER TABLE concerts DROP COLUMN adaptive;
ALTER TABLE concerts DROP COLUMN auto;
DROP TABLE room_records;
DROP TABLE room_snapshots;
DROP TABLE room_logs;

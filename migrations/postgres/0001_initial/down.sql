DROP TABLE mirrored_places, mirrored_rooms, secrets, outbox, replies, points_entries, entries, accounts, payments, reservations, seats, dates, concerts;
DROP SEQUENCE outbox_ids;

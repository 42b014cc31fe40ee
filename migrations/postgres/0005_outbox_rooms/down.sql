DROP TABLE outbox_rooms;

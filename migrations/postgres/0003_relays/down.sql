DROP FUNCTION claim_outbox_shards;
DROP TABLE outbox_shards, relays;

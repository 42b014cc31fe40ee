use crate::config::{Layers, Settings, load};

fn keys_at_fault(assignments: &str) -> Vec<String> {
    let set = assignments.split(';').map(str::to_owned).collect();
    match load(&Layers { set, ..Layers::default() }) {
        Err(crate::config::ConfigError::Invalid(faults)) => faults.into_iter().map(|fault| fault.field).collect(),
        Err(error) => panic!("{assignments}: {error}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn defaults_are_valid_and_derive_their_switches() {
    let settings = Settings::defaults().unwrap();
    assert!(settings.self_charge() && settings.demo_season());
    assert_eq!(settings.default_admission().per_interval, None);
    let set = ["auth.mode=jwt", "auth.hs256_secret=0123456789abcdef0123456789abcdef"].map(str::to_owned).to_vec();
    let settings = load(&Layers { set, ..Layers::default() }).unwrap();
    assert!(!settings.self_charge() && !settings.demo_season());
}

#[test]
fn values_out_of_range_name_their_key() {
    for (assignment, key) in [
        ("http.workers=2000", "http.workers"),
        ("http.max_body_bytes=1", "http.max_body_bytes"),
        ("http.connections_max=0", "http.connections_max"),
        ("http.head_timeout_ms=99", "http.head_timeout_ms"),
        ("http.body_timeout_ms=99", "http.body_timeout_ms"),
        ("http.write_timeout_ms=600001", "http.write_timeout_ms"),
        ("http.bytes_per_s_min=0", "http.bytes_per_s_min"),
        ("store.connections=257", "store.connections"),
        ("store.sqlite_path=", "store.sqlite_path"),
        ("store.backend=postgres", "store.postgres_url"),
        ("store.backend=postgres;store.postgres_url=db/shop", "store.postgres_url"),
        ("queue.backend=redis", "redis.urls"),
        ("strategy.seat=simple", "redis.urls"),
        ("strategy.wallet=spin", "redis.urls"),
        ("strategy.payment=pubsub", "redis.urls"),
        ("redis.urls=[\"127.0.0.1\"]", "redis.urls[0]"),
        ("redis.urls=[\"redis://a\",\"redis://a\"]", "redis.urls[1]"),
        ("redis.redlock_nodes=[\"a\"]", "redis.redlock_nodes[0]"),
        ("strategy.seat=redlock", "redis.redlock_nodes"),
        ("strategy.seat=redlock;redis.redlock_nodes=[\"redis://a\",\"redis://b\"]", "redis.redlock_nodes"),
        ("draw.beacon_url=http://beacon/now", "draw.beacon_url"),
        ("draw.beacon_url=ftp://beacon/{unix}", "draw.beacon_url"),
        ("strategy.lease_ms=1999", "strategy.lease_ms"),
        ("strategy.lease_ms=120001", "strategy.lease_ms"),
        ("strategy.wait_ms=0", "strategy.wait_ms"),
        ("strategy.batch_max=0", "strategy.batch_max"),
        ("strategy.lanes=2", "strategy.lanes"),
        ("strategy.queue_max=0", "strategy.queue_max"),
        ("strategy.backlog_max=0", "strategy.backlog_max"),
        ("strategy.seat=kafka", "kafka.brokers"),
        ("events.sink=kafka", "kafka.brokers"),
        ("kafka.brokers=\"a:1,b\"", "kafka.brokers"),
        ("kafka.brokers=kafka://a:1", "kafka.brokers"),
        ("kafka.partitions=0", "kafka.partitions"),
        ("kafka.commands_topic=a b", "kafka.commands_topic"),
        ("kafka.events_topic=boxoffice.commands", "kafka.events_topic"),
        ("kafka.group=", "kafka.group"),
        ("strategy.payment=rabbitmq", "rabbitmq.url"),
        ("events.sink=rabbitmq", "rabbitmq.url"),
        ("rabbitmq.url=http://a", "rabbitmq.url"),
        ("rabbitmq.url=amqps://a", "rabbitmq.url"),
        ("rabbitmq.shards=0", "rabbitmq.shards"),
        ("rabbitmq.commands_queue=a/b", "rabbitmq.commands_queue"),
        ("rabbitmq.events_exchange=", "rabbitmq.events_exchange"),
        ("strategy.wallet=rabbitmq;rabbitmq.url=amqp://a;idempotency.ttl_s=5", "idempotency.ttl_s"),
        ("reward.percent=101", "reward.percent"),
        ("hold.ttl_s=0", "hold.ttl_s"),
        ("hold.max_seats_per_user=0", "hold.max_seats_per_user"),
        ("hold.sweep_ms=1", "hold.sweep_ms"),
        ("idempotency.ttl_s=0", "idempotency.ttl_s"),
        ("admission.max_active=0", "admission.max_active"),
        ("admission.per_interval_count=5", "admission.per_interval_count"),
        ("admission.per_interval_s=5", "admission.per_interval_count"),
        ("admission.tick_ms=0", "admission.tick_ms"),
        ("admission.room_wait_ms=10001", "admission.room_wait_ms"),
        ("admission.active_ttl_s=0", "admission.active_ttl_s"),
        ("money.currency=won", "money.currency"),
        ("money.currency=ZZZ", "money.currency"),
        ("money.currency=eur", "money.currency"),
        ("money.currency=XAU", "money.currency"),
        ("money.currency=", "money.currency"),
        ("money.amount_max=0", "money.amount_max"),
        ("money.balance_max=10", "money.balance_max"),
        ("telemetry.log=a=loud", "telemetry.log"),
        ("http.listen=0.0.0.0:8080", "auth.mode"),
        ("http.listen=[::]:8080", "auth.mode"),
        ("auth.mode=jwt", "auth.hs256_secret"),
        ("auth.mode=jwt;auth.algorithm=ES256", "auth.jwks_file"),
        ("auth.queue_keys=[\"nonsense\"]", "auth.queue_keys[0]"),
        ("auth.queue_keys=[\"a:QUJD\"]", "auth.queue_keys[0]"),
    ] {
        assert_eq!(keys_at_fault(assignment), [key], "{assignment}");
    }
}

#[test]
fn allowed_combinations_pass() {
    for assignments in [
        "http.listen=0.0.0.0:8080;auth.dev_force=true",
        "http.listen=[::1]:0",
        "store.backend=memory;strategy.lanes=4",
        "store.backend=postgres;store.postgres_url=postgres://db/shop;strategy.lanes=4;queue.backend=memory;strategy.seat=memory",
        "strategy.seat=pessimistic;strategy.wallet=optimistic",
        "strategy.seat=kafka;events.sink=kafka;kafka.brokers=\"a:9092,[::1]:9093\"",
        "strategy.wallet=rabbitmq;rabbitmq.url=\"amqp://ann:pa55@a:1/%2f\"",
        "events.sink=log",
        "money.currency=EUR",
        "money.currency=CLF",
        "queue.backend=redis;strategy.seat=simple;strategy.lease_ms=2000;redis.urls=[\"redis://:pw@a:1/0\"]",
        "strategy.seat=redlock;redis.redlock_nodes=[\"redis://a\",\"redis://b\",\"redis://c\"]",
        "admission.per_interval_count=5;admission.per_interval_s=1",
        "auth.queue_keys=[\"a:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU\"]",
        "telemetry.log=warn,boxoffice=debug",
    ] {
        assert_eq!(keys_at_fault(assignments), Vec::<String>::new(), "{assignments}");
    }
}

#[test]
fn lanes_and_connections_default_to_what_the_store_can_use() {
    let counts = |set: &[&str]| {
        let settings = load(&Layers { set: set.iter().map(|key| (*key).to_owned()).collect(), ..Layers::default() }).unwrap();
        (settings.lane_count(), settings.store.connection_count())
    };
    let postgres = ["store.backend=postgres", "store.postgres_url=postgres://db/shop"];
    let (lanes, connections) = counts(&postgres);
    assert!((1..=4).contains(&lanes) && connections == 16, "{lanes} lanes, {connections} connections");
    assert_eq!(counts(&[]), (1, 4));
    assert_eq!(counts(&[postgres[0], postgres[1], "strategy.lanes=7", "store.connections=9"]), (7, 9));
}

#[test]
fn secrets_are_hidden_wherever_settings_are_printed() {
    let secret = "0123456789abcdef0123456789abcdef";
    let set = vec![
        format!("auth.hs256_secret={secret}"),
        "auth.queue_keys=[\"a:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU\"]".into(),
        "store.postgres_url=postgres://ann:pa55@db/shop".into(),
        "redis.urls=[\"redis://:pa55@a\"]".into(),
        "redis.redlock_nodes=[\"redis://:pa55@b\"]".into(),
        "rabbitmq.url=amqp://ann:pa55@c".into(),
    ];
    let settings = load(&Layers { set, ..Layers::default() }).unwrap();
    for printed in [format!("{settings:?}"), toml::to_string(&settings).unwrap(), serde_json::to_string(&settings).unwrap()] {
        assert!(
            !printed.contains(secret) && !printed.contains("QUJD") && !printed.contains("pa55") && printed.contains("(hidden)"),
            "{printed}"
        );
    }
}

//! The queues and their types, and queues that are missing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxoffice_adapters::rabbitmq::{Failure, QueueType, RabbitLog, RabbitOptions};
use boxoffice_domain::Key;
use boxoffice_ports::contract::build::user;
use boxoffice_ports::{CommandLog, LogError};
use lapin::options::ExchangeDeleteOptions;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::support::{
    Client, LONG, SHARDS, append_at_last, at, command, header, new_name, open, options, queue_of, reader_of, shared, take, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn commands_not_taken_in_time_are_dead_letters() {
    let (url, name) = (shared().await.url(), new_name());
    let log = RabbitLog::open(RabbitOptions { retention: Duration::from_millis(50), ..options(&url, &name) }).expect("settings");
    let (of, wanted) = (user(), 3);
    for nth in 0..wanted {
        log.append(command(of, nth)).await.expect("appended");
    }
    let mut client = Client::connect(&url).await;
    let letters = client.look(&format!("{name}.dead"), wanted as usize).await;
    assert_eq!(letters.len(), wanted as usize);
    for (bytes, properties) in letters {
        let text = String::from_utf8(bytes).expect("JSON");
        assert!(text.contains(&of.to_string()), "{text}");
        assert_eq!(header(&properties, "x-first-death-reason").as_deref(), Some("expired"));
    }
    assert_eq!(client.waiting(&queue_of(&name, Key::Account(of))).await, Some(0));
}

/// The types of the log's queues, as the broker lists them.
async fn types_of(name: &str) -> BTreeSet<(String, String)> {
    let node = shared().await;
    let listed = node.command(&["list_queues", "--no-table-headers", "name", "type"]).expect("a list");
    let of_the_log = |line: &str| {
        let (queue, kind) = line.split_once('\t')?;
        queue.strip_prefix(name).map(|rest| (rest.to_owned(), kind.trim().to_owned()))
    };
    listed.lines().filter_map(of_the_log).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_have_the_type_of_the_settings_and_existing_ones_are_used_as_they_are() {
    let url = shared().await.url();
    let (user_part, rest) = url.split_once('@').expect("a user");
    let (node, host) = rest.split_once('/').expect("a virtual host");
    let cluster = format!("{user_part}@{node},{node}/{host}");
    for (url, queue_type, wanted, other) in [
        (&url, None, "classic", QueueType::Quorum),
        (&url, Some(QueueType::Quorum), "quorum", QueueType::Classic),
        (&cluster, None, "quorum", QueueType::Classic),
        (&cluster, Some(QueueType::Classic), "classic", QueueType::Quorum),
    ] {
        let (name, of) = (new_name(), user());
        let open_with = |queue_type| RabbitLog::open(RabbitOptions { queue_type, ..options(url, &name) }).map(Arc::new).expect("settings");
        let log = open_with(queue_type);
        log.append(command(of, 1)).await.expect("appended");
        let shards = (0..SHARDS).map(|shard| format!(".{shard}"));
        let all: BTreeSet<_> = shards.chain([".dead".to_owned()]).map(|queue| (queue, wanted.to_owned())).collect();
        assert_eq!(types_of(&name).await, all, "{queue_type:?}");
        // Another instance is configured with another type for the existing queues.
        let others = open_with(Some(other));
        others.append(command(of, 2)).await.expect("used as it is");
        let mut reader = reader_of(&others, Key::Account(of)).await;
        assert_eq!(take(&mut reader, 2).await.iter().map(at).collect::<Vec<_>>(), [1, 2]);
        reader.acknowledge(usize::MAX).await.expect("acknowledged");
        assert_eq!(types_of(&name).await, all, "{queue_type:?}, configured as {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_shards_are_declared_again() {
    let (url, name, of) = (shared().await.url(), new_name(), user());
    let (writing, reading) = (open(&url, &name), open(&url, &name));
    let mut reader = reader_of(&reading, Key::Account(of)).await;
    writing.append(command(of, 1)).await.expect("appended");
    assert_eq!(take(&mut reader, 1).await.iter().map(at).collect::<Vec<_>>(), [1]);
    reader.acknowledge(usize::MAX).await.expect("acknowledged");
    let client = Client::connect(&url).await;
    client.delete(&queue_of(&name, Key::Account(of))).await;
    // The reader or the next append declares it, depending on which comes first.
    append_at_last(&writing, &command(of, 2)).await;
    assert_eq!(take(&mut reader, 1).await.iter().map(at).collect::<Vec<_>>(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_queue_is_refused_and_the_next_one_taken() {
    let (url, name, of) = (shared().await.url(), new_name(), user());
    let log = open(&url, &name);
    log.append(command(of, 1)).await.expect("appended");
    Client::connect(&url).await.delete(&queue_of(&name, Key::Account(of))).await;
    // There is no reader that would declare it.
    let refused = log.append(command(of, 2)).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    log.append(command(of, 3)).await.expect("declared again");
    let mut reader = reader_of(&log, Key::Account(of)).await;
    assert_eq!(take(&mut reader, 1).await.iter().map(at).collect::<Vec<_>>(), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_command_does_not_affect_its_neighbours() {
    let (url, name, of) = (shared().await.url(), new_name(), user());
    let (log, mut client) = (open(&url, &name), Client::connect(&url).await);
    let queue = queue_of(&name, Key::Account(of));
    for nth in 1..=2 {
        log.append(command(of, nth)).await.expect("appended");
    }
    client.put(&queue, b"unreadable").await;
    until("it is in the queue", async || (client.waiting(&queue).await? == 3).then_some(())).await;
    log.append(command(of, 3)).await.expect("appended");
    let mut reader = reader_of(&log, Key::Account(of)).await;
    assert_eq!(take(&mut reader, 3).await.iter().map(at).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(client.look(&format!("{name}.dead"), 1).await.len(), 1);
    // Nothing was acknowledged.
    drop((reader, log));
    let log = open(&url, &name);
    let mut reader = reader_of(&log, Key::Account(of)).await;
    assert_eq!(take(&mut reader, 3).await.iter().map(at).collect::<Vec<_>>(), [1, 2, 3]);
}

/// Several commands that were put into the log as one message, unreadable ones among them.
#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_a_message_is_taken_by_itself_and_the_message_once_all_are() {
    let (url, source, name, of) = (shared().await.url(), new_name(), new_name(), user());
    let mut client = Client::connect(&url).await;
    let log = open(&url, &source);
    for nth in 1..=3 {
        log.append(command(of, nth)).await.expect("appended");
    }
    let originals = client.look(&queue_of(&source, Key::Account(of)), 3).await;
    let texts: Vec<&[u8]> = originals.iter().map(|(bytes, _)| bytes.as_slice()).collect();
    let texts = [texts[0], b"unreadable", texts[1], texts[2], b"nor this"];
    let message: Vec<u8> = texts.iter().flat_map(|text| [b"\x1e", *text, b"\n"].concat()).collect();

    let (log, queue) = (open(&url, &name), queue_of(&name, Key::Account(of)));
    let mut reader = reader_of(&log, Key::Account(of)).await;
    until("the queue is there", async || client.waiting(&queue).await).await;
    client.put(&queue, &message).await;
    for nth in 1..=2 {
        assert_eq!(take(&mut reader, 1).await.iter().map(at).collect::<Vec<_>>(), [nth]);
        reader.acknowledge(usize::MAX).await.expect("acknowledged");
    }
    let letters = client.look(&format!("{name}.dead"), 1).await;
    assert_eq!(letters.iter().map(|(bytes, _)| bytes.as_slice()).collect::<Vec<_>>(), [b"unreadable"]);
    drop((reader, log));

    let log = open(&url, &name);
    let mut reader = reader_of(&log, Key::Account(of)).await;
    assert_eq!(take(&mut reader, 3).await.iter().map(at).collect::<Vec<_>>(), [1, 2, 3], "the third command was not taken");
    reader.acknowledge(usize::MAX).await.expect("acknowledged");
    let last = command(of, 4);
    log.append(last.clone()).await.expect("appended");
    assert_eq!(take(&mut reader, 1).await, [last]);
    reader.acknowledge(usize::MAX).await.expect("acknowledged");
    let letters = client.look(&format!("{name}.dead"), 3).await;
    assert_eq!(letters.len(), 3, "the first unreadable one came twice with its message");
    drop((reader, log));
    until("the queue is empty", async || (client.waiting(&queue).await? == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_appended_at_once_go_together() {
    const CALLERS: i64 = 600;
    let (url, name, of) = (shared().await.url(), new_name(), user());
    let log = open(&url, &name);
    let mut callers = JoinSet::new();
    for nth in 0..CALLERS {
        let log = log.clone();
        callers.spawn(async move { log.append(command(of, nth)).await });
    }
    assert!(timeout(LONG, callers.join_all()).await.expect("in time").iter().all(Result::is_ok));
    let mut client = Client::connect(&url).await;
    let messages = client.look(&queue_of(&name, Key::Account(of)), 1).await.len();
    assert!(messages < CALLERS as usize / 2, "{messages} messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_exchanges_are_declared_again() {
    let (url, name, of) = (shared().await.url(), new_name(), user());
    let log = open(&url, &name);
    log.append(command(of, 1)).await.expect("appended");
    let mut client = Client::connect(&url).await;
    let dead = format!("{name}.dead");
    client.channel.exchange_delete(dead.as_str().into(), ExchangeDeleteOptions::default()).await.expect("deleted");
    let mut reader = reader_of(&log, Key::Account(of)).await;
    let taken = take(&mut reader, 1).await;
    reader.dead_letter(taken[0].clone(), "lost".to_owned()).await.expect_err("there is no such exchange");
    reader.dead_letter(taken[0].clone(), "found".to_owned()).await.expect("declared again");
    let letters = client.look(&dead, 1).await;
    assert_eq!(letters.iter().map(|(_, properties)| header(properties, "reason")).collect::<Vec<_>>(), [Some("found".to_owned())]);
}

/// The broker acknowledges many messages at once, returned ones among them.
#[tokio::test(flavor = "multi_thread")]
async fn commands_confirmed_beside_returned_ones_are_stored() {
    const CALLERS: i64 = 600;
    let (url, name) = (shared().await.url(), new_name());
    let log = open(&url, &name);
    let client = Client::connect(&url).await;
    for round in 0..5 {
        log.append(command(user(), 0)).await.expect("appended");
        let gone = format!("{name}.{}", round % SHARDS);
        client.delete(&gone).await;
        let mut callers = JoinSet::new();
        for nth in 1..=CALLERS {
            let (log, of) = (log.clone(), user());
            callers.spawn(async move { (command(of, nth), log.append(command(of, nth)).await) });
        }
        let (mut confirmed, mut refused) = (BTreeSet::new(), 0);
        for (command, outcome) in callers.join_all().await {
            match outcome {
                Ok(()) => _ = confirmed.insert(command.request.command_id),
                Err(LogError::Unavailable(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        println!("{} confirmed, {refused} refused", confirmed.len());
        let found: Arc<Mutex<BTreeSet<_>>> = Arc::default();
        let mut reading = JoinSet::new();
        for mut reader in open(&url, &name).readers().await.expect("readers") {
            let found = found.clone();
            reading.spawn(async move {
                loop {
                    let ids = reader.take(100).await.into_iter().map(|command| command.request.command_id);
                    found.lock().expect("no panic").extend(ids);
                    reader.acknowledge(usize::MAX).await.expect("acknowledged");
                }
            });
        }
        let all_there = async || confirmed.is_subset(&found.lock().expect("no panic")).then_some(());
        until("all confirmed commands are there", all_there).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_in_no_error() {
    let name = new_name();
    let url = shared().await.url().replace("guest:guest", "guest:s3cret");
    let log = open(&url, &name);
    let refused = timeout(LONG, log.append(command(user(), 1))).await.expect("in time").expect_err("a wrong password");
    let ping = timeout(LONG, log.ping()).await.expect("in time").expect_err("a wrong password");
    assert!(!format!("{refused} {refused:?} {ping} {ping:?}").contains("s3cret"), "{refused:?} {ping:?}");
}

#[tokio::test]
async fn settings_out_of_bounds_are_refused() {
    let bad = |change: fn(&mut RabbitOptions)| {
        let mut options = options("amqp://127.0.0.1", "name");
        change(&mut options);
        assert!(matches!(RabbitLog::open(options), Err(Failure::Settings(_))));
    };
    bad(|options| options.shards = 0);
    bad(|options| options.batch = 0);
    bad(|options| options.batch = u16::MAX);
    bad(|options| options.retention = Duration::ZERO);
    bad(|options| options.retention = Duration::from_secs(u64::from(u32::MAX)));
    bad(|options| options.name.clear());
    bad(|options| options.url = "127.0.0.1".to_owned());
}

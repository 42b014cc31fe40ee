//! Brokers that end and restart while commands are appended, taken and answered.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxoffice_adapters::kafka::KafkaLog;
use boxoffice_domain::CommandId;
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{Answer, CommandLog, InstanceId, LogError};
use boxoffice_services::Kafka;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{LONG, POLL, Site, append_until_acknowledged, command, id, put, reader, readers, stored, until};

/// Starting, ending and waiting for a server blocks.
async fn with<T: Send + 'static>(mut kafka: Kafka, work: impl FnOnce(&mut Kafka) -> T + Send + 'static) -> (Kafka, T) {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut kafka);
        (kafka, result)
    });
    done.await.expect("no panic")
}

async fn start(nodes: usize) -> Kafka {
    tokio::task::spawn_blocking(move || Kafka::start_many(nodes).expect("Kafka starts")).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_in_one_partition_and_many_keys_are_in_all() {
    let site = Site::new(Kafka::shared().brokers(), 4, 1);
    let log = site.log().await;
    let users: Vec<_> = (0..30).map(|_| user()).collect();
    for at in 0..5 {
        for of in &users {
            log.append(command(*of, at)).await.expect("appended");
        }
    }
    let stored = stored(&site.brokers, &site.topic, 5 * users.len()).await;
    assert_eq!(stored.iter().map(|message| message.partition).collect::<BTreeSet<_>>(), (0..4).collect());
    for of in &users {
        let key = command(*of, 0).request.command.lane_key().to_string();
        let of_key: Vec<_> = stored.iter().filter(|message| message.key.as_ref() == Some(&key)).collect();
        assert_eq!(of_key.len(), 5, "each message has the key that its command contends for");
        assert!(of_key.iter().all(|message| message.partition == of_key[0].partition), "all in one partition");
    }
}

/// Several commands that were put into the log as one message, an unreadable one among them.
#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_a_message_is_taken_by_itself_and_the_message_once_all_are() {
    let (of, brokers) = (user(), Kafka::shared().brokers());
    let wanted: Vec<_> = (0..3).map(|at| command(of, at)).collect();
    let source = Site::new(brokers.clone(), 1, 1);
    let log = source.log().await;
    for command in &wanted {
        log.append(command.clone()).await.expect("appended");
    }
    let originals = stored(&brokers, &source.topic, wanted.len()).await;
    let [first, second, third] = &originals[..] else { panic!("{originals:?}") };
    let texts = [&first.bytes[..], b"unreadable", &second.bytes, &third.bytes];
    let message: Vec<u8> = texts.iter().flat_map(|text| [b"\x1e", *text, b"\n"].concat()).collect();

    let site = Site::new(brokers.clone(), 1, 1);
    let log = site.log().await;
    put(&brokers, &site.topic, "anything", &message).await;
    let mut taking = reader(&log).await;
    assert_eq!(timeout(LONG, taking.take(1)).await.expect("in time"), wanted[..1]);
    taking.acknowledge(usize::MAX).await.expect("acknowledged");
    assert_eq!(timeout(LONG, taking.take(1)).await.expect("in time"), wanted[1..2]);
    taking.dead_letter(wanted[1].clone(), "no such column".to_owned()).await.expect("kept");
    taking.acknowledge(usize::MAX).await.expect("acknowledged");
    let letters = stored(&brokers, &format!("{}.dead", site.topic), 2).await;
    let letters: BTreeSet<_> = letters.into_iter().map(|letter| letter.bytes).collect();
    assert_eq!(letters, BTreeSet::from([b"unreadable".to_vec(), second.bytes.clone()]), "as they came");
    drop((taking, log));
    assert_eq!(site.committed().await.values().sum::<i64>(), 0, "the third command was not taken");

    let mut again = reader(&site.log().await).await;
    let mut taken = Vec::new();
    while taken.len() < wanted.len() {
        taken.extend(timeout(LONG, again.take(10)).await.expect("in time"));
    }
    assert_eq!(taken, wanted);
    again.acknowledge(usize::MAX).await.expect("acknowledged");
    until("all of it is committed", async || site.committed().await.values().sum::<i64>() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_appended_at_once_go_together() {
    const CALLERS: i64 = 600;
    let site = Site::new(Kafka::shared().brokers(), 4, 1);
    let log = site.log().await;
    let of = user();
    let mut callers = JoinSet::new();
    for at in 0..CALLERS {
        let log = log.clone();
        callers.spawn(async move { log.append(command(of, at)).await });
    }
    assert!(timeout(LONG, callers.join_all()).await.expect("in time").iter().all(Result::is_ok));
    let stored = stored(&site.brokers, &site.topic, 1).await;
    assert!(stored.len() < CALLERS as usize / 2, "{} messages", stored.len());
    put(&site.brokers, &site.topic, &command(of, 0).request.command.lane_key().to_string(), b"beside them").await;
    let beside = self::stored(&site.brokers, &site.topic, stored.len() + 1).await;
    assert_eq!(
        beside.iter().map(|message| message.partition).collect::<BTreeSet<_>>().len(),
        1,
        "the partition that any client chooses for the key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_counted() {
    let site = Site::new(Kafka::shared().brokers(), 1, 1);
    let log = site.log().await;
    let count = || site.traffic.counts().broker_messages;
    for at in 0..7 {
        log.append(command(user(), at)).await.expect("appended");
    }
    assert_eq!(count(), 7);
    let (mut reader, mut taken) = (reader(&log).await, 0);
    while taken < 7 {
        taken += timeout(LONG, reader.take(100)).await.expect("in time").len();
    }
    assert_eq!(count(), 14);
    let instance = InstanceId(fresh());
    let mut answers = log.answers(instance).await.expect("a reader");
    log.answer(instance, vec![Answer { command: fresh(), reply: Err("dead".to_owned()) }]).await.expect("sent");
    assert_eq!(timeout(LONG, answers.next()).await.expect("in time").len(), 1);
    assert_eq!(count(), 16);
}

/// Callers that append, and readers that take.
struct Work {
    acknowledged: Arc<Mutex<BTreeSet<CommandId>>>,
    taken: Arc<Mutex<BTreeSet<CommandId>>>,
    stop: watch::Sender<bool>,
    appending: JoinSet<()>,
    taking: JoinSet<()>,
}

impl Work {
    async fn start(site: &Site, callers: usize) -> Self {
        let (acknowledged, taken) = (Arc::<Mutex<BTreeSet<_>>>::default(), Arc::<Mutex<BTreeSet<_>>>::default());
        let (stop, stopped) = watch::channel(false);
        let (mut appending, mut taking) = (JoinSet::new(), JoinSet::new());
        let (log, other) = (site.log().await, site.log().await);
        for _ in 0..callers {
            let (log, acknowledged, stopped) = (log.clone(), acknowledged.clone(), stopped.clone());
            appending.spawn(async move {
                let of = user();
                for at in 0.. {
                    if *stopped.borrow() {
                        return;
                    }
                    let command = command(of, at);
                    append_until_acknowledged(&log, &command).await;
                    acknowledged.lock().expect("no panic").insert(id(&command));
                }
            });
        }
        for log in [&log, &other] {
            for mut reader in readers(log).await {
                let (taken, log) = (taken.clone(), log.clone());
                taking.spawn(async move {
                    loop {
                        let batch: Vec<_> = reader.take(100).await.iter().map(id).collect();
                        taken.lock().expect("no panic").extend(batch);
                        if let Err(error) = reader.acknowledge(usize::MAX).await {
                            println!("not acknowledged: {error}");
                        }
                        let _alive = &log;
                    }
                });
            }
        }
        Self { acknowledged, taken, stop, appending, taking }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    /// Waits until that many more were acknowledged.
    async fn goes_on(&self, more: usize) {
        let before = self.count();
        until("more is acknowledged", async || self.count() >= before + more).await;
    }

    /// No acknowledged command is missing in the end.
    async fn end(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = timeout(LONG, self.appending.join_next()).await.expect("the callers end") {
            ended.expect("no panic");
        }
        let acknowledged = self.acknowledged.lock().expect("no panic").clone();
        until("all acknowledged commands are taken", async || acknowledged.is_subset(&self.taken.lock().expect("no panic"))).await;
        self.taking.shutdown().await;
        println!("{} commands acknowledged, {} taken", acknowledged.len(), self.taken.lock().expect("no panic").len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_commands_survive_a_killed_broker() {
    let mut kafka = start(1).await;
    let work = Work::start(&Site::new(kafka.brokers(), 3, 2), 30).await;
    for _ in 0..3 {
        work.goes_on(500).await;
        kafka = with(kafka, |kafka| kafka.kill(0).and_then(|()| kafka.restart(0)).expect("Kafka comes back")).await.0;
    }
    work.goes_on(500).await;
    work.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_nodes_is_not_missed() {
    let mut kafka = start(3).await;
    let work = Work::start(&Site::new(kafka.brokers(), 6, 2), 30).await;
    for node in [0, 1] {
        work.goes_on(300).await;
        kafka = with(kafka, move |kafka| kafka.kill(node).expect("killed")).await.0;
        work.goes_on(300).await;
        kafka = with(kafka, move |kafka| kafka.restart(node).expect("the node comes back")).await.0;
    }
    work.goes_on(300).await;
    work.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_everything_fails_in_its_time_and_comes_back_with_it() {
    let kafka = start(1).await;
    let site = Site::new(kafka.brokers(), 2, 1);
    let log = site.log().await;
    let own = InstanceId(fresh());
    let (mut reader, mut answers) = (reader(&log).await, log.answers(own).await.expect("a reader"));
    log.append(command(user(), 0)).await.expect("appended");
    let first = timeout(LONG, reader.take(10)).await.expect("taken");
    log.ping().await.expect("it answers");

    let (kafka, _) = with(kafka, |kafka| kafka.kill(0).expect("killed")).await;
    let refused = timeout(LONG, log.append(command(user(), 1))).await.expect("within its bound");
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    timeout(LONG, log.ping()).await.expect("within its bound").expect_err("it is away");
    timeout(LONG, reader.acknowledge(usize::MAX)).await.expect("it does not wait for the broker").expect("nothing was lost");
    timeout(LONG, site.open()).await.expect("within its bound").map(drop).expect_err("nothing to connect to");
    assert!(timeout(POLL, reader.take(10)).await.is_err(), "nothing to take");
    log.answer(own, vec![Answer { command: fresh(), reply: Err("lost".to_owned()) }]).await.expect("answers are not awaited");

    let (_kafka, _) = with(kafka, |kafka| kafka.restart(0).expect("Kafka comes back")).await;
    until("it answers", async || log.ping().await.is_ok()).await;
    let last = command(user(), 2);
    append_until_acknowledged(&log, &last).await;
    let mut taken = Vec::new();
    until("it is taken", async || {
        if let Ok(batch) = timeout(POLL, reader.take(10)).await {
            taken.extend(batch);
        }
        taken.contains(&last)
    })
    .await;
    assert!(taken.iter().all(|command| first.contains(command) || *command == last), "the refused command is not in the log");
    until("the taken commands are committed", async || {
        // A commit that failed is retried with the next one.
        reader.acknowledge(usize::MAX).await.is_ok() && site.committed().await.values().sum::<i64>() == 2
    })
    .await;
    until("answers are read", async || {
        log.answer(own, vec![Answer { command: fresh(), reply: Err("read".to_owned()) }]).await.expect("sent");
        timeout(POLL, answers.next()).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_too_many_wait_for_a_broker_the_next_is_refused_at_once() {
    let kafka = start(1).await;
    let site = Site::new(kafka.brokers(), 1, 1);
    let log: Arc<KafkaLog> = site.log().await;
    let (kafka, _) = with(kafka, |kafka| kafka.kill(0).expect("killed")).await;
    let one = command(user(), 0);
    let mut waiting = JoinSet::new();
    for _ in 0..25_000 {
        let (log, one) = (log.clone(), one.clone());
        waiting.spawn(async move { log.append(one).await });
    }
    let mut blocked = 0;
    while let Some(refused) = timeout(LONG, waiting.join_next()).await.expect("within its bound") {
        match refused.expect("no panic") {
            Err(LogError::Blocked) => blocked += 1,
            Err(LogError::Unavailable(_)) => {}
            Ok(()) => panic!("there is no broker"),
        }
    }
    assert!((1..=5_000).contains(&blocked), "{blocked} of 25,000 were refused at once");
    let (_kafka, _) = with(kafka, |kafka| kafka.restart(0).expect("Kafka comes back")).await;
    append_until_acknowledged(&log, &one).await;
    assert_eq!(stored(&site.brokers, &site.topic, 1).await.len(), 1);
}

#[test]
fn closing_without_a_broker_blocks_no_worker_and_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut kafka = Kafka::start().expect("Kafka starts");
    runtime.block_on(async {
        let site = Site::new(kafka.brokers(), 1, 2);
        let log = site.log().await;
        log.append(command(user(), 0)).await.expect("appended");
        let mut readers = readers(&log).await;
        until("something is taken", async || {
            for reader in &mut readers {
                if timeout(POLL, reader.take(1)).await.is_ok() {
                    return true;
                }
            }
            false
        })
        .await;
        let answers = log.answers(InstanceId(fresh())).await.expect("a reader");
        kafka.kill(0).expect("killed");
        drop((readers, answers, log));
        // The only worker goes on at once.
        timeout(LONG, tokio::task::yield_now()).await.expect("the worker is free");
    });
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(()).expect("the test waits");
    });
    end.recv_timeout(LONG.max(Duration::from_secs(1))).expect("everything is closed");
}

//! Brokers that end, hang, close connections and refuse messages; instances that end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxoffice_adapters::rabbitmq::{Failure, RabbitLog};
use boxoffice_domain::{Key, UserId};
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{Answer, AnswerReader, CommandLog, InstanceId, LogError};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::support::{LONG, append_at_last, at, command, new_name, open, own, reader_of, shared, take, until};

/// Callers that append one command after the other, each its own user's, and readers on another instance.
struct Traffic {
    callers: JoinSet<()>,
    readers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    /// The confirmed commands.
    appended: Arc<Mutex<BTreeMap<UserId, Vec<i64>>>>,
    /// The commands that were taken, in order, repetitions included.
    taken: Arc<Mutex<BTreeMap<UserId, Vec<i64>>>>,
    refused: Arc<AtomicU64>,
}

impl Traffic {
    const CALLERS: usize = 12;

    async fn start(writing: &Arc<RabbitLog>, reading: &Arc<RabbitLog>) -> Self {
        let mut traffic = Self {
            callers: JoinSet::new(),
            readers: JoinSet::new(),
            stop: Arc::default(),
            appended: Arc::default(),
            taken: Arc::default(),
            refused: Arc::default(),
        };
        for _ in 0..Self::CALLERS {
            let (log, stop) = (writing.clone(), traffic.stop.clone());
            let (appended, refused, of) = (traffic.appended.clone(), traffic.refused.clone(), user());
            traffic.callers.spawn(async move {
                for nth in 1.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    match timeout(LONG, log.append(command(of, nth))).await.expect("an append ends") {
                        Ok(()) => appended.lock().expect("no panic").entry(of).or_default().push(nth),
                        Err(_) => {
                            refused.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            });
        }
        for mut reader in reading.readers().await.expect("readers") {
            let taken = traffic.taken.clone();
            traffic.readers.spawn(async move {
                loop {
                    let batch = reader.take(50).await;
                    {
                        let mut taken = taken.lock().expect("no panic");
                        for command in &batch {
                            let of = command.request.actor.user().expect("a user");
                            taken.entry(of).or_default().push(at(command));
                        }
                    }
                    // A connection that was lost meanwhile brings them again.
                    let _ = reader.acknowledge(usize::MAX).await;
                }
            });
        }
        traffic
    }

    fn confirmed(&self) -> usize {
        self.appended.lock().expect("no panic").values().map(Vec::len).sum()
    }

    /// Waits until every caller has `more` confirmed commands than now.
    async fn flows(&self, more: usize) {
        let before = self.appended.lock().expect("no panic").clone();
        until("every caller is confirmed again", async || {
            let now = self.appended.lock().expect("no panic");
            let enough = now.len() == Self::CALLERS && now.iter().all(|(of, all)| all.len() >= before.get(of).map_or(0, Vec::len) + more);
            enough.then_some(())
        })
        .await;
    }

    /// Stops appending, and ends once every confirmed command was taken.
    async fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(caller) = self.callers.join_next().await {
            caller.expect("no panic");
        }
        let appended = self.appended.lock().expect("no panic").clone();
        until("all confirmed commands are taken", async || {
            let taken = self.taken.lock().expect("no panic");
            let all = appended.iter().all(|(of, all)| {
                let taken: BTreeSet<_> = taken.get(of).into_iter().flatten().collect();
                all.iter().all(|nth| taken.contains(nth))
            });
            all.then_some(())
        })
        .await;
        let taken = self.taken.lock().expect("no panic");
        for (of, all) in taken.iter() {
            let mut seen = BTreeSet::new();
            let firsts: Vec<_> = all.iter().filter(|nth| seen.insert(**nth)).collect();
            assert!(firsts.is_sorted(), "{of}: {firsts:?}");
        }
        let (count, refused) = (appended.values().map(Vec::len).sum::<usize>(), self.refused.load(Ordering::SeqCst));
        println!("{count} confirmed, {refused} refused, {} taken", taken.values().map(Vec::len).sum::<usize>());
    }
}

async fn answered(log: &RabbitLog, instance: InstanceId, reader: &mut Box<dyn AnswerReader>) {
    until("an answer is read", async || {
        let answer = Answer { command: fresh(), reply: Err("gone".to_owned()) };
        // It may be lost while there is no subscription.
        let _ = log.answer(instance, vec![answer]).await;
        timeout(Duration::from_millis(100), reader.next()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_commands_survive_a_killed_broker() {
    let mut broker = own().await;
    let (url, name) = (broker.url(), new_name());
    let (writing, reading) = (open(&url, &name), open(&url, &name));
    let instance = InstanceId(fresh());
    let mut answers = writing.answers(instance).await.expect("a reader");
    let traffic = Traffic::start(&writing, &reading).await;
    // Another log, of which nothing is taken before.
    let (idle, of) = (open(&url, &new_name()), user());
    for nth in 1..=50 {
        idle.append(command(of, nth)).await.expect("appended");
    }
    traffic.flows(20).await;
    broker.kill().expect("killed");
    until("appends fail", async || matches!(writing.append(command(user(), 1)).await, Err(LogError::Unavailable(_))).then_some(())).await;
    assert!(writing.ping().await.is_err());
    let broker = tokio::task::spawn_blocking(move || {
        broker.restart().expect("it starts again");
        broker
    });
    let _broker = broker.await.expect("no panic");
    traffic.flows(20).await;
    let mut reader = reader_of(&idle, Key::Account(of)).await;
    assert_eq!(take(&mut reader, 50).await.iter().map(at).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    answered(&reading, instance, &mut answers).await;
    writing.ping().await.expect("it is back");
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_broker_closes_are_made_again() {
    let broker = own().await;
    let (url, name) = (broker.url(), new_name());
    let (writing, reading) = (open(&url, &name), open(&url, &name));
    let instance = InstanceId(fresh());
    let mut answers = writing.answers(instance).await.expect("a reader");
    let traffic = Traffic::start(&writing, &reading).await;
    for _ in 0..3 {
        traffic.flows(10).await;
        tokio::task::block_in_place(|| broker.close_all_connections()).expect("closed");
        traffic.flows(10).await;
        answered(&reading, instance, &mut answers).await;
    }
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_keeps_no_caller_for_ever() {
    let broker = own().await;
    let (url, name) = (broker.url(), new_name());
    let (writing, reading) = (open(&url, &name), open(&url, &name));
    let traffic = Traffic::start(&writing, &reading).await;
    traffic.flows(10).await;
    broker.pause().expect("hung");
    let before = traffic.confirmed();
    until("appends fail", async || matches!(writing.append(command(user(), 1)).await, Err(LogError::Unavailable(_))).then_some(())).await;
    broker.resume().expect("it goes on");
    traffic.flows(10).await;
    assert!(traffic.confirmed() > before);
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_refuses_appends_and_readers_go_on() {
    let broker = own().await;
    let (name, of) = (new_name(), user());
    let (log, alarm) = (open(&broker.url(), &name), |on| tokio::task::block_in_place(|| broker.set_memory_alarm(on)).expect("an alarm"));
    for nth in 1..=20 {
        log.append(command(of, nth)).await.expect("appended");
    }
    alarm(true);
    // The broker reports the alarm at the first message after it, whose outcome is then unknown.
    let other = user();
    until("appends are refused", async || match log.append(command(other, 1)).await {
        Err(LogError::Blocked) => Some(()),
        Err(LogError::Unavailable(_)) => None,
        Ok(()) => panic!("it was accepted in spite of the alarm"),
    })
    .await;
    for _ in 0..100 {
        assert!(matches!(log.append(command(other, 1)).await, Err(LogError::Blocked)));
    }
    assert!(matches!(log.ping().await, Err(Failure::Blocked)));
    assert!(log.answer(InstanceId(fresh()), Vec::new()).await.is_err());
    let mut reader = reader_of(&log, Key::Account(of)).await;
    assert_eq!(take(&mut reader, 20).await.iter().map(at).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    reader.acknowledge(usize::MAX).await.expect("acknowledged");
    alarm(false);
    append_at_last(&log, &command(of, 21)).await;
    // The other user's command, whose outcome is unknown, may stand in the same shard.
    let mut taken = Vec::new();
    while taken.last() != Some(&21) {
        taken.extend(take(&mut reader, 1).await.iter().map(at));
    }
    assert!(taken.iter().all(|nth| [1, 21].contains(nth)), "{taken:?}");
    log.ping().await.expect("it accepts messages again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_in_line_reads_when_an_instance_ends() {
    let (url, name, of) = (shared().await.url(), new_name(), user());
    let (first, second) = (open(&url, &name), open(&url, &name));
    for nth in 1..=300 {
        first.append(command(of, nth)).await.expect("appended");
    }
    let mut active = reader_of(&first, Key::Account(of)).await;
    assert_eq!(take(&mut active, 40).await.iter().map(at).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    active.acknowledge(usize::MAX).await.expect("acknowledged");
    assert_eq!(take(&mut active, 30).await.len(), 30);
    let mut standby = reader_of(&second, Key::Account(of)).await;
    let idle = timeout(Duration::from_millis(300), standby.take(1)).await;
    assert!(idle.is_err(), "two readers have one shard: {idle:?}");
    // All of the instance: its connections end.
    drop((active, first));
    let mut taken = Vec::new();
    while taken.len() < 260 {
        taken.extend(take(&mut standby, 20).await.iter().map(at));
        standby.acknowledge(usize::MAX).await.expect("acknowledged");
    }
    assert_eq!(taken, (41..=300).collect::<Vec<_>>(), "from the first that was not acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_lost_connection_are_never_acknowledged_on_the_next() {
    let broker = own().await;
    let (name, of) = (new_name(), user());
    let log = open(&broker.url(), &name);
    for nth in 1..=10 {
        log.append(command(of, nth)).await.expect("appended");
    }
    let mut reader = reader_of(&log, Key::Account(of)).await;
    let all: Vec<_> = (1..=10).collect();
    assert_eq!(take(&mut reader, 10).await.iter().map(at).collect::<Vec<_>>(), all);
    tokio::task::block_in_place(|| broker.close_all_connections()).expect("closed");
    // Only a part of the repeated commands is taken. An acknowledgement of the tenth delivery of before would cover all of
    // them; one of the first twelve that were taken covers two of them.
    let again = take(&mut reader, 4).await;
    assert_eq!(again.iter().map(at).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let first = reader.acknowledge(12).await;
    assert!(first.is_err(), "the ten were not acknowledged");
    reader.acknowledge(0).await.expect("nothing is left to acknowledge");
    drop((reader, log));
    let log = open(&broker.url(), &name);
    let mut reader = reader_of(&log, Key::Account(of)).await;
    assert_eq!(take(&mut reader, 8).await.iter().map(at).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8, 9, 10]);
}

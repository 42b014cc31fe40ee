//! Partitions that move while their commands are decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use boxoffice_domain::{CommandId, UserId};
use boxoffice_ports::contract::build::user;
use boxoffice_ports::{CommandLog, CommandReader, LoggedCommand};
use boxoffice_services::Kafka;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{LONG, Site, command, id, reader, stored, until};

/// Takes until so many different commands came.
async fn take_all(reader: &mut Box<dyn CommandReader>, count: usize) -> BTreeSet<CommandId> {
    let mut taken = BTreeSet::new();
    let all = async {
        while taken.len() < count {
            taken.extend(reader.take(10).await.iter().map(id));
        }
    };
    timeout(LONG, all).await.expect("all arrive");
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lost_a_partition_commits_nothing_of_it() {
    const COMMANDS: usize = 40;
    let site = Site::new(Kafka::shared().brokers(), 2, 1);
    let (first, second) = (site.log().await, site.log().await);
    for _ in 0..COMMANDS {
        first.append(command(user(), 0)).await.expect("appended");
    }
    let mut loser = reader(&first).await;
    let all = take_all(&mut loser, COMMANDS).await;
    // Another reader joins while these are decided, and gets a partition. Its commands come again there.
    let mut winner = reader(&second).await;
    let mut moved = Vec::new();
    let moving = async {
        while moved.is_empty() {
            tokio::select! {
                batch = winner.take(1_000) => moved = batch,
                _ = loser.take(1) => panic!("the loser has taken everything there was"),
            }
        }
    };
    timeout(LONG, moving).await.expect("a partition moves");
    let refused = timeout(LONG, loser.acknowledge(usize::MAX)).await.expect("in time").expect_err("a partition was lost");
    assert!(refused.to_string().contains("another reader"), "{refused}");
    let stored = stored(&site.brokers, &site.topic, COMMANDS).await;
    let held = |partition: i32| stored.iter().filter(|message| message.partition == partition).count() as i64;
    let moved: BTreeSet<_> = moved.iter().map(id).collect();
    let lost = stored.iter().find(|message| moved.iter().any(|id| holds(&message.bytes, *id))).expect("it is in a partition").partition;
    let kept = 1 - lost;
    until("something is committed", async || !site.committed().await.is_empty()).await;
    assert_eq!(site.committed().await, BTreeMap::from([(kept, held(kept))]), "the partition that it kept, and not the one that it lost");
    loser.acknowledge(usize::MAX).await.expect("the loss is reported once");
    // The new owner goes on, and commits the positions of its own partition.
    let mut taken = moved;
    while taken.len() < held(lost) as usize {
        taken.extend(timeout(LONG, winner.take(1_000)).await.expect("the rest of it").iter().map(id));
    }
    assert!(taken.is_subset(&all));
    winner.acknowledge(usize::MAX).await.expect("it is the owner");
    let all = BTreeMap::from([(kept, held(kept)), (lost, held(lost))]);
    until("all is committed", async || site.committed().await == all).await;
}

fn holds(bytes: &[u8], id: CommandId) -> bool {
    String::from_utf8_lossy(bytes).contains(&id.to_string())
}

/// An instance that decides the commands it takes: records them, and acknowledges them.
async fn decide(site: Site, decided: Arc<Mutex<Vec<LoggedCommand>>>, mut stop: watch::Receiver<bool>) {
    let log = site.log().await;
    let mut reader = reader(&log).await;
    loop {
        let batch = tokio::select! {
            batch = reader.take(50) => batch,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        decided.lock().expect("no panic").extend(batch);
        if let Err(error) = reader.acknowledge(usize::MAX).await {
            println!("not acknowledged: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_start_and_end_lose_nothing_and_keep_each_keys_order() {
    const USERS: usize = 20;
    const EACH: i64 = 60;
    let site = Site::new(Kafka::shared().brokers(), 6, 1);
    let log = site.log().await;
    let users: Arc<Vec<UserId>> = Arc::new((0..USERS).map(|_| user()).collect());
    let decided = Arc::<Mutex<Vec<LoggedCommand>>>::default();
    let count = |decided: &Mutex<Vec<LoggedCommand>>| decided.lock().expect("no panic").iter().map(id).collect::<BTreeSet<_>>().len();
    let mut instances: Vec<(watch::Sender<bool>, JoinSet<()>)> = Vec::new();
    let start = |instances: &mut Vec<_>| {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(decide(site.clone(), decided.clone(), stopped));
        instances.push((stop, tasks));
    };
    start(&mut instances);
    let mut appended = 0;
    for round in 0..6 {
        let appending = {
            let (log, users) = (log.clone(), users.clone());
            tokio::spawn(async move {
                for at in 0..EACH / 6 {
                    for of in users.iter() {
                        log.append(command(*of, round * (EACH / 6) + at)).await.expect("appended");
                    }
                }
            })
        };
        if round % 2 == 0 {
            start(&mut instances);
        } else {
            let (stop, tasks) = instances.remove(0);
            stop.send_replace(true);
            timeout(LONG, tasks.join_all()).await.expect("it ends");
        }
        appending.await.expect("appended");
        appended += USERS * (EACH / 6) as usize;
        until("everything is decided", async || count(&decided) == appended).await;
    }
    for (stop, tasks) in instances {
        stop.send_replace(true);
        timeout(LONG, tasks.join_all()).await.expect("it ends");
    }
    let mut seen = BTreeSet::new();
    let mut by_user: BTreeMap<UserId, Vec<CommandId>> = BTreeMap::new();
    for command in decided.lock().expect("no panic").iter().filter(|command| seen.insert(id(command))) {
        by_user.entry(command.request.actor.user().expect("a user")).or_default().push(id(command));
    }
    for of in users.iter() {
        assert_eq!(by_user[of], (0..EACH).map(|at| id(&command(*of, at))).collect::<Vec<_>>());
    }
}

//! Charges by callers that repeat each request until it is answered, while a part is killed: each is applied once.
//!
//! [`CHARGES`] of them in each case, or as many as the environment variable `BOXOFFICE_TEST_CHARGES` says.

use super::{Bases, Load, Log, OwnBroker, own_postgres, through_each_log};
use boxoffice_tests::{Person, Process, Server, Setup, at_once, eventually};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use tempfile::TempDir;

const CALLERS: usize = 30;
/// The least number of charges; callers go on until the killed part is back.
const CHARGES: usize = 3_000;
const CHARGES_VARIABLE: &str = "BOXOFFICE_TEST_CHARGES";
/// The parts of the charges that are answered before the kill, and at least after it.
const BEFORE_PARTS: usize = 5;
const AFTER_PARTS: usize = 10;

/// How many charges there are at least.
fn charges() -> usize {
    let set = std::env::var(CHARGES_VARIABLE).ok();
    set.map_or(CHARGES, |set| set.parse().unwrap_or_else(|_| panic!("{CHARGES_VARIABLE} is a number, not {set}")))
}

/// The entries that were answered, by wallet, and how many there are in all.
struct Charged {
    entries: Vec<(Person, HashSet<String>)>,
    total: usize,
}

/// Charges of 1 by all callers, spread over the wallets of `owners`.
async fn charge(load: &Arc<Load>, owners: &[Person]) -> Charged {
    let each = charges().div_ceil(CALLERS);
    let callers = (0..CALLERS).map(|caller| {
        let (load, owners) = (load.clone(), owners.to_vec());
        async move {
            let mut answered = Vec::new();
            for n in 0.. {
                if n >= each && !load.goes_on() {
                    break;
                }
                let (of, key) = ((caller + n) % owners.len(), format!("{caller}-{n}"));
                let request = |owner: &Person| owner.writing("/wallet/charges", &key, &json!({ "amount": 1 }));
                answered.push((of, load.outcome(&owners[of], caller, request).await.expect(201).text("id")));
            }
            answered
        }
    });
    let answered: Vec<_> = at_once(callers).await.into_iter().flatten().collect();
    let mut entries: Vec<_> = owners.iter().map(|owner| (owner.clone(), HashSet::new())).collect();
    for (of, id) in &answered {
        assert!(entries[*of].1.insert(id.clone()), "two charges are one entry");
    }
    Charged { entries, total: answered.len() }
}

/// The store has the entries that were answered and no others, and there is no dead letter.
async fn check(log: Log, server: &Server, charged: &Charged) {
    assert!(charged.total >= charges(), "{}", charged.total);
    for (owner, entries) in &charged.entries {
        let owner = owner.clone().at(&server.base);
        assert_eq!(owner.balance().await, entries.len() as i64, "each charge is applied once");
        assert_eq!(owner.entries().await.into_iter().collect::<HashSet<_>>(), *entries, "each entry is a charge that was answered");
    }
    assert_eq!(log.dead_letters(server).await, 0);
    println!("{}: {} charges, each applied once", log.name(), charged.total);
}

/// Charges at two instances while `kill` runs.
async fn charge_while(log: Log, setup: Setup, kill: impl FnOnce()) {
    let servers = log.commands(setup).start_many(2).await;
    let owners = [servers[0].person().await];
    let load = Arc::new(Load::new(Bases::new(servers.iter().map(|server| server.base.clone()))));
    let killing = async {
        load.answers(charges() / BEFORE_PARTS).await;
        tokio::task::block_in_place(kill);
        load.answers(charges() / AFTER_PARTS).await;
        load.end();
    };
    let (charged, ()) = tokio::join!(charge(&load, &owners), killing);
    check(log, &servers[0], &charged).await;
    Server::audit_and_stop(servers).await;
}

/// A 202 ends in a reply, though the log was away meanwhile (I12).
pub(super) async fn charges_are_applied_once_though_the_broker_is_killed(log: Log) {
    let mut broker = OwnBroker::start(log).await;
    let setup = broker.serve(Setup::default().on_postgres().await);
    charge_while(log, setup, || broker.kill_and_restart()).await;
}

pub(super) async fn charges_are_applied_once_though_postgres_is_killed(log: Log) {
    let (mut cluster, url) = own_postgres();
    let setup = log.setup().await.with(&format!("store.postgres_url={url}"));
    charge_while(log, setup, || cluster.kill().and_then(|()| cluster.restart()).expect("killed, and started again")).await;
}

/// One instance is a process of its own: when it is killed, it has read commands that are not acknowledged.
pub(super) async fn charges_are_applied_once_though_an_instance_is_killed(log: Log) {
    let setup = log.setup().await;
    let folder = TempDir::new().unwrap();
    let start = async || {
        let set: Vec<_> = setup.settings().iter().map(String::as_str).collect();
        Process::start(&folder.path().join("unused.db"), &set).await.expect("the instance starts")
    };
    // Started first: with RabbitMQ the instance that subscribed first reads.
    let killed = start().await;
    let server = setup.clone().start().await;
    let owners = [server.person().await];
    let load = Arc::new(Load::new(Bases::new([server.base.clone(), killed.base.clone()])));
    let killing = async {
        load.answers(charges() / BEFORE_PARTS).await;
        killed.kill().await.expect("killed");
        load.answers(charges() / AFTER_PARTS).await;
        let again = start().await;
        load.bases.set(1, &again.base);
        load.answers(charges() / AFTER_PARTS).await;
        load.end();
        again
    };
    let (charged, again) = tokio::join!(charge(&load, &owners), killing);
    check(log, &server, &charged).await;
    assert!(again.terminate().await.unwrap().success());
    Server::audit_and_stop(vec![server]).await;
}

through_each_log! {
    charges_are_applied_once_though_the_broker_is_killed
    charges_are_applied_once_though_postgres_is_killed
    charges_are_applied_once_though_an_instance_is_killed
}

/// Enough wallets for every partition.
const WALLETS: usize = 40;

/// A third instance takes over some of the partitions, in the middle of their batches, and gives them back.
#[tokio::test(flavor = "multi_thread")]
async fn charges_are_applied_once_though_partitions_move() {
    let log = Log::Kafka;
    let setup = log.setup().await.with("kafka.partitions=8");
    let servers = setup.clone().start_many(2).await;
    let mut owners = Vec::new();
    for _ in 0..WALLETS {
        owners.push(servers[0].person().await);
    }
    let load = Arc::new(Load::new(Bases::new(servers.iter().map(|server| server.base.clone()))));
    let moving = async {
        load.answers(charges() / BEFORE_PARTS).await;
        let third = setup.clone().start().await;
        // It gets no requests: the commands that it decided came from partitions.
        eventually("it reads a partition", async || (third.running.stats.commands.get() > 0).then_some(())).await;
        load.answers(charges() / AFTER_PARTS).await;
        third.running.stop().await;
        load.answers(charges() / AFTER_PARTS).await;
        load.end();
    };
    let (charged, ()) = tokio::join!(charge(&load, &owners), moving);
    check(log, &servers[0], &charged).await;
    Server::audit_and_stop(servers).await;
}

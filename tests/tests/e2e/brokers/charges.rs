//! Charges by callers who repeat what was not answered, while something dies: each is applied once, and answered.
//!
//! [`CHARGES`] of them in each case, or as many as the environment variable `BOXOFFICE_TEST_CHARGES` says.

use super::{Course, Doors, Log, OwnBroker, own_postgres, through_each_log};
use boxoffice_tests::{Person, Process, Server, Setup, at_once, eventually};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use tempfile::TempDir;

const CALLERS: usize = 30;
/// At least, and more until the trouble is over.
const CHARGES: usize = 3_000;
const CHARGES_VARIABLE: &str = "BOXOFFICE_TEST_CHARGES";
/// Of the charges, how many are answered before the trouble, and how many after it at least.
const BEFORE_PARTS: usize = 5;
const AFTER_PARTS: usize = 10;

/// How many are asked for.
fn charges() -> usize {
    let set = std::env::var(CHARGES_VARIABLE).ok();
    set.map_or(CHARGES, |set| set.parse().unwrap_or_else(|_| panic!("{CHARGES_VARIABLE} is a number, not {set}")))
}

/// All callers, each at a wallet out of `owners`: how much each wallet was charged, and the entries that were answered.
struct Charged {
    entries: Vec<(Person, HashSet<String>)>,
    total: usize,
}

async fn charge(course: &Arc<Course>, owners: &[Person]) -> Charged {
    let each = charges().div_ceil(CALLERS);
    let callers = (0..CALLERS).map(|caller| {
        let (course, owners) = (course.clone(), owners.to_vec());
        async move {
            let mut told = Vec::new();
            for n in 0.. {
                if n >= each && !course.goes_on() {
                    break;
                }
                let (of, key) = ((caller + n) % owners.len(), format!("{caller}-{n}"));
                let request = |owner: &Person| owner.writing("/wallet/charges", &key, &json!({ "amount": 1 }));
                told.push((of, course.outcome(&owners[of], caller, request).await.expect(201).text("id")));
            }
            told
        }
    });
    let told: Vec<_> = at_once(callers).await.into_iter().flatten().collect();
    let mut entries: Vec<_> = owners.iter().map(|owner| (owner.clone(), HashSet::new())).collect();
    for (of, id) in &told {
        assert!(entries[*of].1.insert(id.clone()), "two charges are one entry");
    }
    Charged { entries, total: told.len() }
}

/// Every entry of a wallet.
async fn stored(owner: &Person) -> HashSet<String> {
    let (mut stored, mut cursor) = (HashSet::new(), String::new());
    loop {
        let page = owner.get(&format!("/wallet/entries?limit=200{cursor}")).await.expect(200);
        let ids = page.at("items").as_array().into_iter().flatten();
        stored.extend(ids.map(|entry| entry["id"].as_str().unwrap_or_default().to_owned()));
        let Some(next) = page.at("next_cursor").as_str() else { return stored };
        cursor = format!("&cursor={next}");
    }
}

/// What was answered is what is there, the invariants hold, and nothing lies with the dead letters.
async fn check(log: Log, server: &Server, charged: &Charged) {
    assert!(charged.total >= charges(), "{}", charged.total);
    for (owner, entries) in &charged.entries {
        let owner = owner.clone().at(&server.base);
        assert_eq!(owner.balance().await, entries.len() as i64, "each charge is applied once");
        assert_eq!(stored(&owner).await, *entries, "each entry is a charge that was answered");
    }
    server.audit().await;
    assert_eq!(log.dead_letters(server).await, 0);
    println!("{}: {} charges, each applied once", log.name(), charged.total);
}

async fn stop(servers: Vec<Server>) {
    for server in servers {
        server.running.stop().await;
    }
}

/// Two instances are charged while `trouble` is made.
async fn charge_while(log: Log, setup: Setup, trouble: impl FnOnce()) {
    let servers = log.commands(setup).start_many(2).await;
    let owners = [servers[0].person().await];
    let course = Arc::new(Course::new(Doors::new(servers.iter().map(|server| server.base.clone()))));
    let troubled = async {
        course.answers(charges() / BEFORE_PARTS).await;
        tokio::task::block_in_place(trouble);
        course.answers(charges() / AFTER_PARTS).await;
        course.is_over();
    };
    let (charged, ()) = tokio::join!(charge(&course, &owners), troubled);
    check(log, &servers[0], &charged).await;
    stop(servers).await;
}

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

/// One instance is a process of its own: what it read last is in its hands when it dies.
pub(super) async fn charges_are_applied_once_though_an_instance_is_killed(log: Log) {
    let setup = log.setup().await;
    let folder = TempDir::new().unwrap();
    let start = async || {
        let set: Vec<_> = setup.settings().iter().map(String::as_str).collect();
        Process::start(&folder.path().join("unused.db"), &set).await.expect("the instance starts")
    };
    // First, so that it is the one who reads where the order of arrival decides that.
    let killed = start().await;
    let server = setup.clone().start().await;
    let owners = [server.person().await];
    let course = Arc::new(Course::new(Doors::new([server.base.clone(), killed.base.clone()])));
    let trouble = async {
        course.answers(charges() / BEFORE_PARTS).await;
        killed.kill().await.expect("killed");
        course.answers(charges() / AFTER_PARTS).await;
        let again = start().await;
        course.doors.moved(1, &again.base);
        course.answers(charges() / AFTER_PARTS).await;
        course.is_over();
        again
    };
    let (charged, again) = tokio::join!(charge(&course, &owners), trouble);
    check(log, &server, &charged).await;
    assert!(again.terminate().await.unwrap().success());
    server.running.stop().await;
}

through_each_log! {
    charges_are_applied_once_though_the_broker_is_killed
    charges_are_applied_once_though_postgres_is_killed
    charges_are_applied_once_though_an_instance_is_killed
}

/// Wallets enough to lie in every partition.
const WALLETS: usize = 40;

/// A third instance takes some of the partitions over, in the middle of their batches, and gives them back.
#[tokio::test(flavor = "multi_thread")]
async fn charges_are_applied_once_though_partitions_move() {
    let log = Log::Kafka;
    let setup = log.setup().await.with("kafka.partitions=8");
    let servers = setup.clone().start_many(2).await;
    let mut owners = Vec::new();
    for _ in 0..WALLETS {
        owners.push(servers[0].person().await);
    }
    let course = Arc::new(Course::new(Doors::new(servers.iter().map(|server| server.base.clone()))));
    let trouble = async {
        course.answers(charges() / BEFORE_PARTS).await;
        let third = setup.clone().start().await;
        // Nobody asks it for anything: what it has taken came from the partitions.
        eventually("it reads a partition", async || (third.running.stats.commands.get() > 0).then_some(())).await;
        course.answers(charges() / AFTER_PARTS).await;
        third.running.stop().await;
        course.answers(charges() / AFTER_PARTS).await;
        course.is_over();
    };
    let (charged, ()) = tokio::join!(charge(&course, &owners), trouble);
    check(log, &servers[0], &charged).await;
    stop(servers).await;
}

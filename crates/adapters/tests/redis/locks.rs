//! All four locks: the contract, two instances of each, and servers that end, hang and lose their data.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use boxoffice_adapters::redis::{PubSubLock, Redis, Redlock, SimpleLock, SpinLock};
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::contract::lock::AskedAgain;
use boxoffice_ports::{Deadline, Lease, Lock, LockError, Traffic};
use boxoffice_services::Redis as Server;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Longer than anything here needs.
const LONG: Duration = Duration::from_secs(30);
/// The shortest allowed, for leases that must expire.
const LEASE_SHORT: Duration = Duration::from_secs(2);
/// Longer than any test waits: a key that is free again was given back.
const LEASE_LONG: Duration = Duration::from_secs(600);
/// The wait for a lock that is not to be had.
const SHORT: Duration = Duration::from_millis(50);

/// One kind of lock: how it is made, and how many nodes it needs.
#[derive(Clone, Copy)]
struct Kind {
    make: fn(&[Server], Duration) -> Arc<dyn Lock>,
    nodes: usize,
}

const SIMPLE: Kind = Kind { make: |nodes, lease| Arc::new(AskedAgain(Arc::new(SimpleLock::new(connect(nodes), lease)))), nodes: 1 };
const SPIN: Kind = Kind { make: |nodes, lease| Arc::new(SpinLock::new(connect(nodes), lease)), nodes: 1 };
const PUBSUB: Kind =
    Kind { make: |nodes, lease| Arc::new(PubSubLock::start(connect(nodes), lease, &*boxoffice_ports::contract::supervisor())), nodes: 1 };
const REDLOCK: Kind = Kind { make: |nodes, lease| Arc::new(redlock(nodes, lease)), nodes: 5 };

fn urls(nodes: &[Server]) -> Vec<String> {
    nodes.iter().map(Server::url).collect()
}

fn connect(nodes: &[Server]) -> Redis {
    Redis::open(&urls(nodes), Arc::default()).expect("an address")
}

fn redlock(nodes: &[Server], lease: Duration) -> Redlock {
    Redlock::start(&urls(nodes), lease, Arc::default(), &*boxoffice_ports::contract::supervisor()).expect("addresses")
}

fn start(nodes: usize) -> Vec<Server> {
    (0..nodes).map(|_| Server::start().expect("Redis starts")).collect()
}

impl Kind {
    fn lock(self) -> Arc<dyn Lock> {
        (self.make)(self.shared(), LEASE_LONG)
    }

    /// The nodes of this process, which no test disturbs.
    fn shared(self) -> &'static [Server] {
        static SHARED: OnceLock<Vec<Server>> = OnceLock::new();
        &SHARED.get_or_init(|| start(REDLOCK.nodes))[..self.nodes]
    }

    /// Nodes for one test.
    fn own(self) -> Vec<Server> {
        start(self.nodes)
    }
}

macro_rules! each_lock {
    ($($module:ident $kind:ident)*) => {$(
        mod $module {
            use super::*;

            async fn make() -> Arc<dyn Lock> {
                $kind.lock()
            }

            boxoffice_ports::lock_contract!(make);

            each_lock!(@cases $kind:
                two_instances_exclude_each_other
                a_lease_ends_after_its_holder_is_gone
                a_lock_that_another_owner_took_is_neither_kept_nor_given_back
                a_lease_outlasts_its_time_to_live_by_renewal
                a_redis_that_ends_while_the_lock_is_held_hangs_no_caller
                a_redis_that_hangs_hangs_no_caller_and_leaves_no_key
                an_acquire_cancelled_at_any_moment_leaves_no_key
            );
        }
    )*};
    (@cases $kind:ident: $($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            super::$case($kind).await;
        }
    )*};
}

each_lock!(simple SIMPLE  spin SPIN  pubsub PUBSUB  redlock REDLOCK);

fn key() -> Key {
    Key::Account(user())
}

/// The name of the key in Redis.
fn name(key: Key) -> String {
    let Key::Account(user) = key else { panic!("an account") };
    format!("boxoffice:lock:{{account:{user}}}")
}

async fn take(lock: &Arc<dyn Lock>, key: Key, owner: CommandId) -> Result<Box<dyn Lease>, LockError> {
    timeout(LONG, lock.acquire(vec![key], owner, Deadline::after(LONG))).await.expect("in time")
}

/// Sends a command of the test to each node, which blocks for a moment.
fn ask(nodes: &[Server], words: &[&str]) -> Vec<String> {
    nodes.iter().map(|node| node.command(words).expect("an answer")).collect()
}

/// On how many nodes the key exists.
fn kept(nodes: &[Server], key: Key) -> usize {
    ask(nodes, &["EXISTS", &name(key)]).iter().filter(|answer| *answer == ":1").count()
}

/// Waits for a condition, and panics with its name after a bound.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn two_instances_exclude_each_other(kind: Kind) {
    const EACH: usize = 100;
    let (one, inside, order) = (key(), Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (mut tasks, started) = (JoinSet::new(), Instant::now());
    for instance in 0..2 {
        let lock = kind.lock();
        for _ in 0..EACH {
            let (lock, inside, order) = (lock.clone(), inside.clone(), order.clone());
            tasks.spawn(async move {
                let lease = take(&lock, one, fresh()).await.expect("a lock");
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "another task is in");
                order.lock().expect("no panic").push(instance);
                tokio::time::sleep(Duration::from_millis(1)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                lease.release().await;
            });
        }
    }
    timeout(LONG, tasks.join_all()).await.expect("all get a turn");
    let (order, took) = (order.lock().expect("no panic").clone(), started.elapsed());
    assert_eq!(order.len(), 2 * EACH);
    let longest = order.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
    // How many turns the last to finish had had when the other had all of its own.
    let (last, turns) = (order[order.len() - 1], order.len());
    let meanwhile = order.iter().rposition(|at| *at != last).map_or(0, |end| order[..end].iter().filter(|at| **at == last).count());
    println!(
        "fairness: {turns} turns in {took:?}, longest row of one instance {longest}, slower one had {meanwhile} of {EACH} at the other's last"
    );
}

/// A process that ends gives nothing back. Its runtime ends with it, and so does the renewal.
async fn a_lease_ends_after_its_holder_is_gone(kind: Kind) {
    let one = key();
    let gone = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let lock = || (kind.make)(kind.shared(), LEASE_SHORT);
        let lease = runtime.block_on(async { lock().acquire(vec![one], fresh(), Deadline::after(LONG)).await }).expect("a lock");
        runtime.shutdown_background();
        drop(lease);
    });
    gone.join().expect("no panic");
    assert!(kept(kind.shared(), one) > kind.nodes / 2, "it left its key");
    let lock = kind.lock();
    assert!(matches!(lock.acquire(vec![one], fresh(), Deadline::after(SHORT)).await, Err(LockError::Busy { same_command: false })));
    take(&lock, one, fresh()).await.expect("its time to live has passed").release().await;
}

async fn a_lock_that_another_owner_took_is_neither_kept_nor_given_back(kind: Kind) {
    let (one, lock) = (key(), (kind.make)(kind.shared(), LEASE_SHORT));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    let set = ask(kind.shared(), &["SET", &name(one), "another", "PX", "600000"]);
    assert!(set.iter().all(|answer| answer == "+OK"));
    timeout(LONG, lease.lost()).await.expect("the next renewal finds it");
    lease.release().await;
    drop(lock.acquire(vec![one], fresh(), Deadline::after(SHORT)).await.map(drop).expect_err("another owner has it"));
    assert!(ask(kind.shared(), &["STRLEN", &name(one)]).iter().all(|length| length == ":7"), "the other owner still has it");
}

async fn a_lease_outlasts_its_time_to_live_by_renewal(kind: Kind) {
    let (one, lock) = (key(), (kind.make)(kind.shared(), LEASE_SHORT));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    assert!(timeout(LEASE_SHORT * 2, lease.lost()).await.is_err(), "it is renewed");
    assert!(kept(kind.shared(), one) > kind.nodes / 2);
    lease.release().await;
    until("the key is given back", || kept(kind.shared(), one) == 0).await;
}

async fn a_redis_that_ends_while_the_lock_is_held_hangs_no_caller(kind: Kind) {
    let mut nodes = kind.own();
    let (one, lock) = (key(), (kind.make)(&nodes, LEASE_SHORT));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    let waiter = {
        let lock = lock.clone();
        tokio::spawn(async move { lock.acquire(vec![one], fresh(), Deadline::after(Duration::from_millis(300))).await.err() })
    };
    nodes.iter_mut().for_each(|node| node.kill().expect("killed"));
    let refused = timeout(LONG, waiter).await.expect("its wait ends").expect("no panic");
    assert!(refused.is_some(), "there is no node that could give it the lock");
    // A probe has to find out first.
    let deadline = Instant::now() + LONG;
    while !matches!(timeout(LONG, lock.acquire(vec![key()], fresh(), Deadline::after(SHORT))).await, Ok(Err(LockError::Unavailable(_)))) {
        assert!(Instant::now() < deadline, "there is no node");
    }
    timeout(LONG, lease.lost()).await.expect("it cannot be renewed");
    nodes.iter_mut().for_each(|node| node.restart().expect("started again"));
    timeout(LONG, lease.release()).await.expect("giving back ends");
    // It connects again with pauses, so the first tries may come too early.
    let deadline = Instant::now() + LONG;
    loop {
        match lock.acquire(vec![one], fresh(), Deadline::after(Duration::from_secs(1))).await {
            Ok(lease) => break lease.release().await,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

async fn a_redis_that_hangs_hangs_no_caller_and_leaves_no_key(kind: Kind) {
    let nodes = kind.own();
    let (one, two, lock) = (key(), key(), (kind.make)(&nodes, LEASE_LONG));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    nodes.iter().for_each(|node| node.pause().expect("paused"));
    let asked = Instant::now();
    let refused = timeout(LONG, lock.acquire(vec![two], fresh(), Deadline::after(SHORT))).await.expect("its wait ends");
    println!("hung: refused after {:?} of a wait of {SHORT:?}", asked.elapsed());
    assert!(matches!(refused, Err(LockError::Unavailable(_))));
    timeout(LONG, lease.release()).await.expect("giving back ends");
    nodes.iter().for_each(|node| node.resume().expect("resumed"));
    // Commands that they run late are undone.
    for key in [one, two] {
        until("late commands are undone", || kept(&nodes, key) == 0).await;
    }
}

async fn an_acquire_cancelled_at_any_moment_leaves_no_key(kind: Kind) {
    const STEPS: u64 = 60;
    let (lock, mut begun) = (kind.lock(), 0);
    for step in 0..STEPS {
        let one = key();
        let acquiring = {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire(vec![one], fresh(), Deadline::after(LONG)).await.map(drop) })
        };
        // From before the command is sent to after its answer.
        let pause = Instant::now() + Duration::from_micros(step * 12);
        while Instant::now() < pause {
            tokio::task::yield_now().await;
        }
        acquiring.abort();
        begun += usize::from(kept(kind.shared(), one) > 0);
        let _ = acquiring.await;
        until("the key is given back", || kept(kind.shared(), one) == 0).await;
        take(&lock, one, fresh()).await.expect("it is free").release().await;
    }
    println!("cancelled: {begun} of {STEPS} had taken the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_is_refused_at_once_however_long_it_may_wait() {
    let lock: Arc<dyn Lock> = Arc::new(SimpleLock::new(connect(SIMPLE.shared()), LEASE_LONG));
    let (one, owner) = (key(), fresh());
    let lease = lock.acquire(vec![one], owner, Deadline::after(LONG)).await.expect("a lock");
    let refused = timeout(LONG, lock.acquire(vec![one], fresh(), Deadline::after(LONG * 10))).await.expect("it does not wait");
    assert!(matches!(refused, Err(LockError::Busy { same_command: false })));
    let refused = lock.acquire(vec![one], owner, Deadline::after(LONG)).await;
    assert!(matches!(refused, Err(LockError::Busy { same_command: true })));
    lease.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_finds_its_own_command_on_another_instance_does_not_wait() {
    for kind in [SPIN, PUBSUB, REDLOCK] {
        let (one, owner) = (key(), fresh());
        let lease = take(&kind.lock(), one, owner).await.expect("a lock");
        let refused = timeout(LONG, kind.lock().acquire(vec![one], owner, Deadline::after(LONG * 10))).await.expect("at once");
        assert!(matches!(refused, Err(LockError::Busy { same_command: true })));
        let other = kind.lock().acquire(vec![one], fresh(), Deadline::after(SHORT)).await;
        assert!(matches!(other, Err(LockError::Busy { same_command: false })));
        lease.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_a_message_is_found_by_polling() {
    let nodes = PUBSUB.own();
    let (one, lock) = (key(), (PUBSUB.make)(&nodes, LEASE_LONG));
    ask(&nodes, &["SET", &name(one), "another", "PX", "600000"]);
    let waiter = {
        let lock = lock.clone();
        tokio::spawn(async move { take(&lock, one, fresh()).await.expect("a lock").release().await })
    };
    until("the waiter is subscribed", || ask(&nodes, &["PUBLISH", &name(one), ""]) == [":1"]).await;
    assert!(!waiter.is_finished(), "a message alone gives no lock");
    // Deleted without a message.
    ask(&nodes, &["DEL", &name(one)]);
    timeout(LONG, waiter).await.expect("it polls").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_is_notified_again_after_its_subscription_was_cut() {
    let nodes = PUBSUB.own();
    let (one, lock) = (key(), (PUBSUB.make)(&nodes, LEASE_LONG));
    ask(&nodes, &["SET", &name(one), "another", "PX", "600000"]);
    let waiter = {
        let lock = lock.clone();
        tokio::spawn(async move { take(&lock, one, fresh()).await.expect("a lock").release().await })
    };
    for _ in 0..3 {
        until("the waiter is subscribed", || ask(&nodes, &["PUBLISH", &name(one), ""]) == [":1"]).await;
        ask(&nodes, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    }
    until("the waiter is subscribed", || ask(&nodes, &["PUBLISH", &name(one), ""]) == [":1"]).await;
    ask(&nodes, &["DEL", &name(one)]);
    timeout(LONG, waiter).await.expect("a lock").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_wakes_the_waiter_and_a_release_sends_one() {
    /// That many polls would take longer than the bound.
    const MESSAGES: usize = 500;
    let (traffic, one, nodes) = (Arc::new(Traffic::default()), key(), PUBSUB.shared());
    let redis = Redis::open(&urls(nodes), traffic.clone()).expect("an address");
    let lock: Arc<dyn Lock> = Arc::new(PubSubLock::start(redis, LEASE_LONG, &*boxoffice_ports::contract::supervisor()));
    let holder = take(&PUBSUB.lock(), one, fresh()).await.expect("a lock");
    let waiter = {
        let lock = lock.clone();
        tokio::spawn(async move { take(&lock, one, fresh()).await })
    };
    until("the waiter is subscribed", || ask(nodes, &["PUBLISH", &name(one), ""]) == [":1"]).await;
    let woken = async {
        for _ in 0..MESSAGES {
            let before = traffic.counts().redis_commands;
            ask(nodes, &["PUBLISH", &name(one), ""]);
            until("the waiter tries", || traffic.counts().redis_commands > before).await;
        }
    };
    timeout(LONG, woken).await.expect("each message wakes it");

    let mut subscriber = TcpStream::connect(("127.0.0.1", nodes[0].port())).expect("connected");
    subscriber.set_read_timeout(Some(LONG)).expect("set");
    subscriber.write_all(format!("SUBSCRIBE {}\r\n", name(one)).as_bytes()).expect("sent");
    until("the test is subscribed", || ask(nodes, &["PUBLISH", &name(one), "test"]) == [":2"]).await;
    holder.release().await;
    let mut lines = BufReader::new(subscriber).lines().map_while(Result::ok);
    // Bulk strings: a length, then the text. That of the release is empty.
    assert!(lines.any(|line| line == "$0"), "a release sends a message");
    waiter.await.expect("no panic").expect("a lock").release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_wakes_one_waiter_in_a_process_and_costs_a_few_commands() {
    const WAITERS: u64 = 50;
    let (traffic, one) = (Arc::new(Traffic::default()), key());
    let redis = Redis::open(&urls(PUBSUB.shared()), traffic.clone()).expect("an address");
    let lock: Arc<dyn Lock> = Arc::new(PubSubLock::start(redis, LEASE_LONG, &*boxoffice_ports::contract::supervisor()));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    let mut tasks = JoinSet::new();
    for _ in 0..WAITERS {
        let lock = lock.clone();
        tasks.spawn(async move { take(&lock, one, fresh()).await.expect("a lock").release().await });
    }
    lease.release().await;
    timeout(LONG, tasks.join_all()).await.expect("all get a turn");
    let commands = traffic.counts().redis_commands;
    println!("commands: {commands} for {} turns", WAITERS + 1);
    // Two for each turn, and a few for sending the scripts, the subscription and polls; not one for each waiter and release.
    assert!(((WAITERS + 1) * 2..(WAITERS + 1) * 2 + 40).contains(&commands), "{commands}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_checked_and_an_absent_redis_is_unavailable() {
    let refused = Redis::open(&["http://u:secret@h".to_owned()], Arc::default()).map(drop).expect_err("no address");
    assert!(!refused.to_string().contains("secret"));
    let absent = Redis::open(&["redis://:secret@127.0.0.1:1".to_owned()], Arc::default()).expect("an address");
    let locks: [Arc<dyn Lock>; 2] = [
        Arc::new(SpinLock::new(absent.clone(), LEASE_SHORT)),
        Arc::new(PubSubLock::start(absent, LEASE_SHORT, &*boxoffice_ports::contract::supervisor())),
    ];
    for lock in locks {
        let Err(LockError::Unavailable(error)) = lock.acquire(vec![key()], fresh(), Deadline::after(SHORT)).await else {
            panic!("there is no Redis")
        };
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

/// They wait for Redis, and not for the holder of the lock.
#[tokio::test(flavor = "multi_thread")]
async fn callers_in_line_for_a_redis_that_hangs_learn_that_it_is_unavailable() {
    for kind in [SPIN, PUBSUB] {
        let nodes = kind.own();
        let (one, lock) = (key(), (kind.make)(&nodes, LEASE_SHORT));
        take(&lock, one, fresh()).await.expect("a lock").release().await;
        nodes.iter().for_each(|node| node.pause().expect("paused"));
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let lock = lock.clone();
            tasks.spawn(async move { lock.acquire(vec![one], fresh(), Deadline::after(Duration::from_millis(1_500))).await.map(drop) });
        }
        let refused = timeout(LONG, tasks.join_all()).await.expect("their waits end");
        nodes.iter().for_each(|node| node.resume().expect("resumed"));
        assert!(refused.iter().all(|refused| matches!(refused, Err(LockError::Unavailable(_)))), "{refused:?}");
    }
}

mod majority;

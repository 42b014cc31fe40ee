//! The locks on one Redis.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_adapters::redis::{PubSubLock, Redis, SimpleLock, SpinLock};
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::contract::lock::AskedAgain;
use boxoffice_ports::{Lease, Lock, LockError, Traffic};
use boxoffice_services::Redis as Server;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Longer than anything here needs.
const LONG: Duration = Duration::from_secs(30);
/// The shortest that there is.
const LEASE: Duration = Duration::from_secs(2);
/// For what is not to be had.
const SHORT: Duration = Duration::from_millis(50);

/// How each is made. All but `simple` wait.
type Make = fn(&[String]) -> Arc<dyn Lock>;

fn connect(urls: &[String]) -> Redis {
    Redis::open(urls, Arc::default()).expect("an address")
}

fn simple(urls: &[String]) -> Arc<dyn Lock> {
    Arc::new(AskedAgain(Arc::new(SimpleLock::new(connect(urls), LEASE))))
}

fn spin(urls: &[String]) -> Arc<dyn Lock> {
    Arc::new(SpinLock::new(connect(urls), LEASE))
}

fn pubsub(urls: &[String]) -> Arc<dyn Lock> {
    Arc::new(PubSubLock::start(connect(urls), LEASE))
}

fn shared() -> Vec<String> {
    vec![Server::shared().url()]
}

/// A server of its own, for what would disturb others.
fn own() -> (Server, Vec<String>) {
    let server = Server::start().expect("Redis starts");
    let urls = vec![server.url()];
    (server, urls)
}

macro_rules! each_lock {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;

            async fn make() -> Arc<dyn Lock> {
                super::$name(&shared())
            }

            boxoffice_ports::lock_contract!(make);

            #[tokio::test(flavor = "multi_thread")]
            async fn two_instances_exclude_each_other() {
                super::two_instances_exclude_each_other(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_holder_that_is_gone_is_outlived() {
                super::a_holder_that_is_gone_is_outlived(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_lock_that_became_somebody_elses_is_neither_kept_nor_given_back() {
                super::a_lock_that_became_somebody_elses_is_neither_kept_nor_given_back(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_lease_outlasts_its_time_to_live_by_renewal() {
                super::a_lease_outlasts_its_time_to_live_by_renewal(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_redis_that_ends_while_the_lock_is_held_hangs_nobody() {
                super::a_redis_that_ends_while_the_lock_is_held_hangs_nobody(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_redis_that_hangs_hangs_nobody_and_leaves_nothing() {
                super::a_redis_that_hangs_hangs_nobody_and_leaves_nothing(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn an_acquire_cancelled_at_any_moment_leaves_nothing() {
                super::an_acquire_cancelled_at_any_moment_leaves_nothing(super::$name).await;
            }
        }
    )*};
}

each_lock!(simple spin pubsub);

fn key() -> Key {
    Key::Account(user())
}

/// What the key is called in Redis.
fn name(key: Key) -> String {
    let Key::Account(user) = key else { panic!("an account") };
    format!("boxoffice:lock:{{account:{user}}}")
}

async fn take(lock: &Arc<dyn Lock>, key: Key, owner: CommandId) -> Result<Box<dyn Lease>, LockError> {
    timeout(LONG, lock.acquire(vec![key], owner, LONG)).await.expect("in time")
}

/// A command of the test's own, which blocks for a moment.
fn ask(server: &Server, words: &[&str]) -> String {
    server.command(words).expect("an answer")
}

/// Waits for a condition; what it waits for is given up loudly.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn two_instances_exclude_each_other(make: Make) {
    const EACH: usize = 150;
    let (one, inside) = (key(), Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for instance in 0..2 {
        let lock = make(&shared());
        for _ in 0..EACH {
            let (lock, inside, order) = (lock.clone(), inside.clone(), order.clone());
            tasks.spawn(async move {
                let lease = take(&lock, one, fresh()).await.expect("a lock");
                assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "somebody else is in");
                order.lock().expect("no panic").push(instance);
                tokio::time::sleep(Duration::from_millis(1)).await;
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                lease.release().await;
            });
        }
    }
    let started = Instant::now();
    timeout(LONG, tasks.join_all()).await.expect("everybody gets a turn");
    let order = order.lock().expect("no panic").clone();
    assert_eq!(order.len(), 2 * EACH);
    let longest = order.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
    // The one that has all its turns first shows how the other was treated meanwhile.
    let last = order[order.len() - 1];
    let meanwhile =
        order.iter().rposition(|instance| *instance != last).map_or(0, |end| order[..=end].iter().filter(|i| **i == last).count());
    println!(
        "fairness: {} turns in {:?}; longest row of one instance {longest}; the slower had {meanwhile} of {EACH} when the faster had all",
        order.len(),
        started.elapsed()
    );
}

/// A process that ends gives nothing back. Its runtime ends with it, and with that the renewal.
async fn a_holder_that_is_gone_is_outlived(make: Make) {
    let one = key();
    let gone = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let lease = runtime.block_on(async { make(&shared()).acquire(vec![one], fresh(), LONG).await }).expect("a lock");
        runtime.shutdown_background();
        std::mem::forget(lease);
    });
    gone.join().expect("no panic");
    assert_ne!(ask(Server::shared(), &["EXISTS", &name(one)]), ":0", "it left its key");
    let lock = make(&shared());
    assert!(matches!(lock.acquire(vec![one], fresh(), SHORT).await, Err(LockError::Busy { same_command: false })));
    take(&lock, one, fresh()).await.expect("its time to live is over").release().await;
}

async fn a_lock_that_became_somebody_elses_is_neither_kept_nor_given_back(make: Make) {
    let (one, lock) = (key(), make(&shared()));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    assert_eq!(ask(Server::shared(), &["SET", &name(one), "another", "PX", "60000"]), "+OK");
    timeout(LONG, lease.lost()).await.expect("the next renewal finds it");
    lease.release().await;
    assert_eq!(ask(Server::shared(), &["STRLEN", &name(one)]), ":7", "it is the other's still");

    let lease = take(&lock, key(), fresh()).await.expect("a lock");
    let dropped = take(&lock, one, fresh());
    ask(Server::shared(), &["DEL", &name(one)]);
    drop(dropped.await.expect("it is free again"));
    lease.release().await;
}

async fn a_lease_outlasts_its_time_to_live_by_renewal(make: Make) {
    let (one, lock) = (key(), make(&shared()));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    assert!(timeout(LEASE * 2, lease.lost()).await.is_err(), "it is renewed");
    assert_eq!(ask(Server::shared(), &["EXISTS", &name(one)]), ":1");
    lease.release().await;
    assert_eq!(ask(Server::shared(), &["EXISTS", &name(one)]), ":0");
}

async fn a_redis_that_ends_while_the_lock_is_held_hangs_nobody(make: Make) {
    let (mut server, urls) = own();
    let (one, lock) = (key(), make(&urls));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    let waiter = {
        let (lock, wait) = (lock.clone(), Duration::from_millis(300));
        tokio::spawn(async move { lock.acquire(vec![one], fresh(), wait).await.err() })
    };
    server.kill().expect("killed");
    let refused = timeout(LONG, waiter).await.expect("its wait ends").expect("no panic");
    assert!(refused.is_some(), "nobody could give it the lock");
    let other = timeout(LONG, lock.acquire(vec![key()], fresh(), SHORT)).await.expect("its wait ends");
    assert!(matches!(other, Err(LockError::Unavailable(_))));
    timeout(LONG, lease.lost()).await.expect("it cannot be renewed");
    server.restart().expect("started again");
    timeout(LONG, lease.release()).await.expect("giving back hangs nobody");
    // It connects again with pauses, so the first tries may come too early.
    let deadline = Instant::now() + LONG;
    loop {
        match lock.acquire(vec![one], fresh(), Duration::from_secs(1)).await {
            Ok(lease) => break lease.release().await,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

async fn a_redis_that_hangs_hangs_nobody_and_leaves_nothing(make: Make) {
    let (server, urls) = own();
    let (one, two, lock) = (key(), key(), make(&urls));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    server.pause().expect("paused");
    let asked = Instant::now();
    let refused = timeout(LONG, lock.acquire(vec![two], fresh(), SHORT)).await.expect("its wait ends");
    assert!(matches!(refused, Err(LockError::Unavailable(_))));
    println!("refused after {:?} of a hung Redis", asked.elapsed());
    timeout(LONG, lease.release()).await.expect("giving back hangs nobody");
    server.resume().expect("resumed");
    // What it does late, it is told to undo.
    for key in [one, two] {
        until("the undoing", || ask(&server, &["EXISTS", &name(key)]) == ":0").await;
    }
}

async fn an_acquire_cancelled_at_any_moment_leaves_nothing(make: Make) {
    let lock = make(&shared());
    for step in 0..60u32 {
        let one = key();
        let acquiring = {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire(vec![one], fresh(), LONG).await.map(|_| ()) })
        };
        // From before the command is sent to after its answer.
        let pause = Instant::now() + Duration::from_micros(u64::from(step) * 10);
        while Instant::now() < pause {
            tokio::task::yield_now().await;
        }
        acquiring.abort();
        let _ = acquiring.await;
        until("giving back", || ask(Server::shared(), &["EXISTS", &name(one)]) == ":0").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_is_busy_at_once_whatever_it_may_wait() {
    let lock: Arc<dyn Lock> = Arc::new(SimpleLock::new(connect(&shared()), LEASE));
    let (one, owner) = (key(), fresh());
    let lease = lock.acquire(vec![one], owner, LONG).await.expect("a lock");
    let refused = timeout(LONG / 2, lock.acquire(vec![one], fresh(), LONG * 10)).await.expect("it does not wait");
    assert!(matches!(refused, Err(LockError::Busy { same_command: false })));
    let refused = lock.acquire(vec![one], owner, LONG).await;
    assert!(matches!(refused, Err(LockError::Busy { same_command: true })));
    lease.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_finds_its_own_command_on_another_instance_does_not_wait() {
    for make in [spin, pubsub] {
        let (one, owner) = (key(), fresh());
        let lease = take(&make(&shared()), one, owner).await.expect("a lock");
        let refused = timeout(LONG / 2, make(&shared()).acquire(vec![one], owner, LONG * 10)).await.expect("at once");
        assert!(matches!(refused, Err(LockError::Busy { same_command: true })));
        lease.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_nobody_hears_is_found_by_asking() {
    let (server, urls) = own();
    let (one, lock) = (key(), pubsub(&urls));
    assert_eq!(ask(&server, &["SET", &name(one), "another", "PX", "60000"]), "+OK");
    let waiter = {
        let lock = lock.clone();
        tokio::spawn(async move { take(&lock, one, fresh()).await.expect("a lock").release().await })
    };
    until("the subscription", || ask(&server, &["PUBLISH", &name(one), ""]) == ":1").await;
    assert!(!waiter.is_finished(), "a message alone gives no lock");
    // Deleted without a word.
    ask(&server, &["DEL", &name(one)]);
    timeout(LONG, waiter).await.expect("it polls").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_wakes_one_waiter_of_a_process_and_costs_a_few_commands() {
    const WAITERS: u64 = 50;
    let (traffic, one) = (Arc::new(Traffic::default()), key());
    let lock: Arc<dyn Lock> = Arc::new(PubSubLock::start(Redis::open(&shared(), traffic.clone()).expect("an address"), LEASE));
    let lease = take(&lock, one, fresh()).await.expect("a lock");
    let mut tasks = JoinSet::new();
    for _ in 0..WAITERS {
        let lock = lock.clone();
        tasks.spawn(async move { take(&lock, one, fresh()).await.expect("a lock").release().await });
    }
    lease.release().await;
    timeout(LONG, tasks.join_all()).await.expect("everybody gets a turn");
    let commands = traffic.counts().redis_commands;
    println!("{commands} commands for {} turns", WAITERS + 1);
    // Two a turn, and a handful for the script's first sending, the subscription and polls; not one a waiter and release.
    assert!(commands < (WAITERS + 1) * 2 + 40, "{commands}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_checked_and_a_redis_that_is_not_there_is_unavailable() {
    assert!(Redis::open(&["http://u:secret@h".to_owned()], Arc::default()).is_err_and(|error| !error.to_string().contains("secret")));
    for make in [spin, pubsub] {
        let nobody = make(&["redis://:secret@127.0.0.1:1".to_owned()]);
        let Err(LockError::Unavailable(error)) = nobody.acquire(vec![key()], fresh(), SHORT).await else { panic!("there is none") };
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

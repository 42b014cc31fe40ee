//! The waiting room: the contract, alone and by two instances in turn, and crowds over two instances.

mod loss;
mod million;
mod mirror;
mod model;
mod nodes;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::memory::MemoryStore;
use boxoffice_adapters::redis::{Redis, RedisWaitingRoom};
use boxoffice_domain::{Admission, ConcertId, Entered, Place, QueueEntryId, QueueStatus, RoomCounts, Stock, Timestamp, UserId};
use boxoffice_ports::contract::Fixture;
use boxoffice_ports::contract::build::{admission, fresh, user};
use boxoffice_ports::{Clock, PlaceClaim, RoomError, RoomMirror, RoomTerms, Ticked, WaitingRoom};
use boxoffice_services::Redis as Server;
use tokio::task::JoinSet;

use mirror::WatchedMirror;

/// How long a turn lasts here.
const TURN_S: u32 = 600;
const PLENTY: Stock = Stock { obtainable: 1_000_000, linked: true };

fn instance(urls: &[String], mirror: Arc<dyn RoomMirror>, clock: Arc<dyn Clock>) -> Arc<dyn WaitingRoom> {
    Arc::new(RedisWaitingRoom::new(Redis::open(urls, Arc::default()).expect("an address"), mirror, clock, TURN_S))
}

/// Two instances, asked in turn.
struct InTurn {
    rooms: [Arc<dyn WaitingRoom>; 2],
    calls: AtomicUsize,
}

impl InTurn {
    fn next(&self) -> &dyn WaitingRoom {
        &*self.rooms[self.calls.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

#[async_trait]
impl WaitingRoom for InTurn {
    async fn open(&self, terms: RoomTerms) -> Result<(), RoomError> {
        self.next().open(terms).await
    }

    async fn join(&self, concert: ConcertId, user: UserId, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        self.next().join(concert, user, fresh).await
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.next().place(concert, entry).await
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.next().touch(concert, entry).await
    }

    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError> {
        self.next().restore(concert, claim).await
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        self.next().leave(concert, entry).await
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.next().finish(concert, user, paid_at).await
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        self.next().tick(concert, stock).await
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        self.next().admission(concert).await
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        self.next().set_admission(concert, was, to).await
    }

    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError> {
        self.next().counts(concert).await
    }
}

fn fixture(urls: &[String], instances: usize) -> Fixture {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let one = || instance(urls, store.clone(), clock.clone());
    let room = if instances == 1 { one() } else { Arc::new(InTurn { rooms: [one(), one()], calls: AtomicUsize::new(0) }) };
    Fixture { stores: store.stores(), room, advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(store) }
}

fn shared() -> Vec<String> {
    vec![Server::shared().url()]
}

mod alone {
    async fn make() -> boxoffice_ports::contract::Fixture {
        super::fixture(&super::shared(), 1)
    }

    boxoffice_ports::room_contract!(make);
}

mod in_turn {
    async fn make() -> boxoffice_ports::contract::Fixture {
        super::fixture(&super::shared(), 2)
    }

    boxoffice_ports::room_contract!(make);
}

/// Two instances of a room of one concert, on one mirror and one clock.
struct Pair {
    rooms: [Arc<dyn WaitingRoom>; 2],
    store: Arc<MemoryStore>,
    mirror: Arc<WatchedMirror>,
    clock: Arc<SystemClock>,
    concert: ConcertId,
    terms: RoomTerms,
}

impl Pair {
    async fn open(urls: &[String], admission: Admission) -> Arc<Self> {
        let clock = Arc::new(SystemClock::default());
        let store = MemoryStore::new(clock.clone());
        let plan = boxoffice_ports::contract::build::demo_plan(clock.now());
        let concert = store.stores().catalog.import(vec![plan], admission).await.expect("an import")[0].id;
        let mirror = WatchedMirror::new(store.clone());
        let one = || instance(urls, mirror.clone(), clock.clone());
        let rooms = [one(), one()];
        let terms = RoomTerms { concert, sale_starts_at: None, admission };
        for room in &rooms {
            room.open(terms).await.expect("a room");
        }
        Arc::new(Self { rooms, store, mirror, clock, concert, terms })
    }

    async fn join(&self, user: UserId) -> Place {
        self.rooms[0].join(self.concert, user, fresh()).await.expect("a place").place
    }

    /// Over one instance or the other, again as long as a busy machine keeps Redis from answering in time.
    async fn join_at(&self, at: usize, user: UserId) -> Entered {
        const TRIES_MAX: u32 = 200;
        for _ in 0..TRIES_MAX {
            match self.rooms[at % 2].join(self.concert, user, fresh()).await {
                Ok(entered) => return entered,
                Err(RoomError::Unavailable(_)) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no place after {TRIES_MAX} tries");
    }

    async fn join_many(&self, count: usize) -> Vec<Place> {
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            places.push(self.join(user()).await);
        }
        places
    }

    async fn tick(&self, stock: Stock) -> Ticked {
        self.rooms[0].tick(self.concert, stock).await.expect("a tick")
    }

    async fn place(&self, entry: QueueEntryId) -> Option<Place> {
        self.rooms[1].place(self.concert, entry).await.expect("a room")
    }

    async fn status(&self, entry: QueueEntryId) -> Option<QueueStatus> {
        self.place(entry).await.map(|place| place.status)
    }

    async fn counts(&self) -> RoomCounts {
        self.rooms[1].counts(self.concert).await.expect("counts")
    }

    async fn restore(&self, claim: PlaceClaim) -> Option<Place> {
        self.rooms[1].restore(self.concert, claim).await.expect("an answer")
    }
}

/// What a token given at that time would say.
fn claim(place: &Place) -> PlaceClaim {
    PlaceClaim { entry: place.entry, user: place.user, place: place.arrival, active_until: place.active_until }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_join_at_once_over_two_instances() {
    const USERS: u64 = 10_000;
    let pair = Pair::open(&shared(), admission()).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS as usize {
        let pair = Arc::clone(&pair);
        tasks.spawn(async move { pair.join_at(at, user()).await });
    }
    let mut all = tasks.join_all().await;
    all.sort_unstable_by_key(|entered| entered.place.arrival);
    let arrivals: Vec<_> = all.iter().map(|entered| entered.place.arrival).collect();
    assert_eq!(arrivals, (1..=USERS).collect::<Vec<_>>(), "distinct places, none left out");
    for entered in all.iter().step_by(97) {
        for room in &pair.rooms {
            let place = room.place(pair.concert, entered.place.entry).await.expect("a room").expect("a place");
            assert_eq!((place.arrival, place.ahead), (entered.place.arrival, Some(entered.place.arrival - 1)));
        }
    }
    assert_eq!(pair.tick(PLENTY).await.promoted, 100);
    for (at, entered) in all.iter().enumerate().take(150) {
        let expected = if at < 100 { QueueStatus::Active } else { QueueStatus::Waiting };
        assert_eq!(pair.status(entered.place.entry).await, Some(expected), "place {}", at + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_joins_of_one_user_over_two_instances_are_one_place() {
    let pair = Pair::open(&shared(), admission()).await;
    let ann = user();
    let mut tasks = JoinSet::new();
    for at in 0..1_000 {
        let pair = Arc::clone(&pair);
        tasks.spawn(async move { pair.join_at(at, ann).await });
    }
    let all = tasks.join_all().await;
    assert!(all.iter().filter(|entered| entered.new).count() <= 1, "an answer that came too late may have been the new one");
    assert_eq!(all.iter().map(|entered| (entered.place.entry, entered.place.arrival)).collect::<HashSet<_>>().len(), 1);
    assert_eq!(pair.counts().await.waiting, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_an_admission_is_replaced_by_a_newer_one_alone() {
    let pair = Pair::open(&shared(), admission()).await;
    let (five, six) = (Admission { max_active: 5, ..admission() }, Admission { max_active: 6, ..admission() });
    // Set in the ledger's database alone, as if Redis had been away.
    let own = pair.store.set_admission(pair.concert, admission(), five).await.expect("a store").expect("set");
    assert_eq!(pair.rooms[1].admission(pair.concert).await.expect("an admission"), five, "the truth is read");
    pair.rooms[1].open(pair.terms).await.expect("a room");
    pair.join_many(10).await;
    assert_eq!(pair.tick(PLENTY).await.promoted, 5, "the copy follows at the next opening");
    assert!(!pair.rooms[0].set_admission(pair.concert, admission(), six).await.expect("an answer"), "it is another by now");
    assert!(pair.rooms[0].set_admission(pair.concert, five, six).await.expect("an answer"));
    assert!(pair.store.admission(pair.concert).await.expect("a store").is_some_and(|now| now.version > own.version));
    assert_eq!(pair.tick(PLENTY).await.promoted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_late_brings_no_older_admission() {
    let pair = Pair::open(&shared(), admission()).await;
    let (five, six) = (Admission { max_active: 5, ..admission() }, Admission { max_active: 6, ..admission() });
    pair.store.set_admission(pair.concert, admission(), five).await.expect("a store").expect("set");
    let gate = pair.mirror.stop_admission();
    let opening = tokio::spawn({
        let pair = Arc::clone(&pair);
        async move { pair.rooms[0].open(pair.terms).await }
    });
    gate.arrived.notified().await;
    assert!(pair.rooms[1].set_admission(pair.concert, five, six).await.expect("an answer"));
    gate.go.notify_one();
    opening.await.expect("no panic").expect("a room");
    pair.join_many(10).await;
    assert_eq!(pair.tick(PLENTY).await.promoted, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_room_expires_when_nobody_touches_it() {
    let node = Server::start().expect("Redis starts");
    let pair = Pair::open(&[node.url()], Admission { max_active: 2, ..admission() }).await;
    let places = pair.join_many(5).await;
    pair.tick(PLENTY).await;
    pair.rooms[1].leave(pair.concert, places[0].entry).await.expect("left");
    pair.rooms[1].finish(pair.concert, places[1].user, Timestamp::MAX_UTC).await.expect("finished");
    pair.rooms[1].join(pair.concert, user(), fresh()).await.expect("a place");
    let count = |word: &str| -> u64 { word.trim_start_matches(':').parse().expect("a number") };
    let all = count(&node.command(&["DBSIZE"]).expect("a count"));
    assert!(all >= 7, "{all} keys");
    let script =
        "local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do if redis.call('TTL', key) > 0 then n = n + 1 end end return n";
    assert_eq!(count(&node.command(&["EVAL", script, "0"]).expect("a count")), all, "each key has an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_entry_is_forgotten_after_a_day_and_whoever_came_back_is_not() {
    let pair = Pair::open(&shared(), admission()).await;
    let (ann, ben) = (pair.join(user()).await, pair.join(user()).await);
    for place in [&ann, &ben] {
        pair.rooms[0].leave(pair.concert, place.entry).await.expect("left");
    }
    let again = pair.join(ben.user).await;
    let nothing = Stock { obtainable: 0, linked: true };
    pair.tick(nothing).await;
    assert_eq!(pair.status(ann.entry).await, Some(QueueStatus::Left));
    pair.clock.advance(chrono::TimeDelta::seconds(boxoffice_domain::room::ENDED_KEPT_S + 1));
    pair.tick(nothing).await;
    assert_eq!((pair.place(ann.entry).await, pair.place(ben.entry).await), (None, None));
    assert_eq!(pair.join(ben.user).await.entry, again.entry);
    assert_eq!(pair.counts().await.left, 2, "and still counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_never_runs_backwards_for_a_room() {
    let pair = Pair::open(&shared(), admission()).await;
    let ann = pair.join(user()).await;
    pair.tick(PLENTY).await;
    let long = chrono::TimeDelta::seconds(i64::from(TURN_S) + 1);
    pair.clock.advance(long);
    pair.tick(Stock { obtainable: 0, linked: true }).await;
    let ben = pair.join(user()).await;
    pair.clock.advance(-long);
    pair.tick(PLENTY).await;
    assert_eq!(pair.status(ann.entry).await, Some(QueueStatus::Expired));
    let until = pair.place(ben.entry).await.and_then(|place| place.active_until).expect("a turn");
    assert!(until > pair.clock.now() + long, "by the room's time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_or_ends_is_unavailable_and_comes_back_by_itself() {
    let mut node = Server::start().expect("Redis starts");
    let pair = Pair::open(&[node.url()], admission()).await;
    let ann = pair.join(user()).await;
    pair.tick(PLENTY).await;
    node.pause().expect("paused");
    let hung = pair.rooms[1].place(pair.concert, ann.entry).await;
    assert!(matches!(hung, Err(RoomError::Unavailable(_))), "{hung:?}");
    node.resume().expect("resumed");
    let until_there = async || loop {
        match pair.rooms[1].touch(pair.concert, ann.entry).await {
            Ok(place) => break place,
            Err(RoomError::Unavailable(_)) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let bound = std::time::Duration::from_secs(30);
    let back = tokio::time::timeout(bound, until_there()).await.expect("it comes back");
    assert_eq!(back.expect("a place").status, QueueStatus::Active);
    node.kill().expect("killed");
    let gone = pair.rooms[1].join(pair.concert, user(), fresh()).await;
    assert!(matches!(gone, Err(RoomError::Unavailable(_))), "{gone:?}");
    node.restart().expect("Redis starts");
    let back = tokio::time::timeout(bound, until_there()).await.expect("it comes back");
    assert_eq!(back.expect("rebuilt from the mirror").status, QueueStatus::Active);
}

//! The waiting room over several instances: crowds, crashes, idleness, and every step beside the domain's own room.

mod model;

use super::contract::ACTIVE_TTL_S;
use super::support::Place;
use boxoffice_domain::room::PROMOTIONS_PER_TICK_MAX;
use boxoffice_domain::{Admission, AdmissionMode, ConcertId, PerInterval, QueueEntryId, QueueStatus, Stock, UserId};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{RoomTerms, Stores, Ticked, WaitingRoom};
use boxoffice_services::Postgres;
use chrono::TimeDelta;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const PLENTY: Stock = Stock { obtainable: 1_000_000, linked: true };

/// Two instances of one room that is open.
pub(crate) struct Twins {
    pub(crate) place: Place,
    pub(crate) stores: Stores,
    pub(crate) rooms: [Arc<dyn WaitingRoom>; 2],
    pub(crate) concert: ConcertId,
}

impl Twins {
    pub(crate) async fn open(place: Place, admission: Admission) -> Self {
        let (one, other) = (place.open().await, place.open().await);
        let stores = one.stores();
        let plan = demo_plan(stores.queries.now().await.expect("now"));
        let concert = stores.catalog.import(vec![plan], admission).await.expect("imported")[0].id;
        let rooms = [one.waiting_room(ACTIVE_TTL_S), other.waiting_room(ACTIVE_TTL_S)];
        rooms[0].open(RoomTerms { concert, sale_starts_at: None, admission }).await.expect("open");
        Self { place, stores, rooms, concert }
    }

    async fn status(&self, room: usize, entry: QueueEntryId) -> QueueStatus {
        self.rooms[room].place(self.concert, entry).await.expect("a room").expect("a place").status
    }

    /// Everybody who waits, asked at once, has as many before them as there are.
    async fn check_ahead(&self, waiting: &BTreeMap<u64, QueueEntryId>) {
        let mut tasks = JoinSet::new();
        for (before, (arrival, entry)) in waiting.iter().enumerate() {
            let (room, concert, arrival, entry) = (self.rooms[before % 2].clone(), self.concert, *arrival, *entry);
            tasks.spawn(async move {
                let place = room.place(concert, entry).await.expect("a room").expect("a place");
                assert_eq!((place.entry, place.arrival, place.ahead), (entry, arrival, Some(before as u64)));
            });
        }
        while let Some(asked) = tasks.join_next().await {
            asked.expect("the same count");
        }
    }

    /// Where the rows of its room stand on their pages: any write moves or marks them.
    async fn rows(&self) -> Vec<String> {
        self.place.texts("SELECT ctid::text || xmin::text || xmax::text FROM queue_rooms UNION ALL SELECT ctid::text || xmin::text || xmax::text FROM queue_entries").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_on_two_instances_get_distinct_places_without_gaps() {
    const USERS: u64 = 10_000;
    let twins = Twins::open(Place::new(), admission()).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS {
        let (room, concert) = (twins.rooms[(at % 2) as usize].clone(), twins.concert);
        tasks.spawn(async move { room.join(concert, user(), fresh()).await.expect("a place") });
    }
    let entered = tasks.join_all().await;
    assert!(entered.iter().all(|entered| entered.new));
    let mut arrivals: Vec<_> = entered.iter().map(|entered| entered.place.arrival).collect();
    arrivals.sort_unstable();
    assert_eq!(arrivals, (1..=USERS).collect::<Vec<_>>());
    assert!(entered.iter().all(|entered| entered.place.ahead.is_some_and(|ahead| ahead < USERS)));
    assert_eq!(twins.rooms[1].counts(twins.concert).await.expect("counts").waiting, USERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_joins_of_one_user_on_two_instances_are_one_place() {
    let twins = Twins::open(Place::new(), admission()).await;
    let ann = user();
    let mut tasks = JoinSet::new();
    for at in 0..1_000 {
        let (room, concert) = (twins.rooms[at % 2].clone(), twins.concert);
        tasks.spawn(async move { room.join(concert, ann, fresh()).await.expect("a place") });
    }
    let entered = tasks.join_all().await;
    assert_eq!(entered.iter().filter(|entered| entered.new).count(), 1);
    assert!(entered.iter().all(|entered| entered.place.arrival == 1));
    assert!(entered.iter().all(|one| one.place.entry == entered[0].place.entry));
    assert_eq!(twins.place.texts("SELECT last_place::text || ' ' || waiting::text FROM queue_rooms").await, ["1 1"]);
}

/// Who left is counted by blocks of places: every edge of a block, and what promotion leaves of them.
#[tokio::test(flavor = "multi_thread")]
async fn places_are_counted_over_many_blocks_and_promoted_in_capped_steps() {
    const USERS: u64 = 3_200;
    let twins = Twins::open(Place::new(), Admission { max_active: 100_000, ..admission() }).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS {
        let (room, concert) = (twins.rooms[(at % 2) as usize].clone(), twins.concert);
        tasks.spawn(async move { room.join(concert, user(), fresh()).await.expect("a place").place });
    }
    let mut waiting: BTreeMap<u64, QueueEntryId> = tasks.join_all().await.into_iter().map(|place| (place.arrival, place.entry)).collect();
    let goes = |place: &u64| *place == 1 || place.is_multiple_of(7) || (1_015..1_030).contains(place) || (2_045..2_052).contains(place);
    let mut leaving = JoinSet::new();
    let left: Vec<_> = waiting.extract_if(.., |place, _| goes(place)).collect();
    for (place, entry) in left {
        let (room, concert) = (twins.rooms[(place % 2) as usize].clone(), twins.concert);
        leaving.spawn(async move { room.leave(concert, entry).await.expect("left") });
    }
    leaving.join_all().await;
    twins.check_ahead(&waiting).await;
    for room in &twins.rooms {
        let expected = waiting.len().min(PROMOTIONS_PER_TICK_MAX as usize);
        assert_eq!(room.tick(twins.concert, PLENTY).await.expect("a tick").promoted, expected as u64);
        for _ in 0..expected {
            waiting.pop_first();
        }
        twins.check_ahead(&waiting).await;
    }
    assert!(waiting.is_empty());
    let entered = twins.rooms[0].join(twins.concert, user(), fresh()).await.expect("a place");
    assert_eq!((entered.place.arrival, entered.place.ahead), (USERS + 1, Some(0)));
}

/// Both instances promote, end and let in at the same time: counts, rows and places agree at the end.
#[tokio::test(flavor = "multi_thread")]
async fn counts_agree_with_the_rows_after_a_tumult() {
    const USERS: usize = 400;
    let twins = Twins::open(Place::new(), Admission { max_active: 30, ..admission() }).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS {
        let (room, concert) = (twins.rooms[at % 2].clone(), twins.concert);
        tasks.spawn(async move {
            let ann = user();
            let place = room.join(concert, ann, fresh()).await.expect("a place").place;
            match at % 5 {
                0 => room.leave(concert, place.entry).await.expect("left"),
                1 => drop(room.tick(concert, PLENTY).await.expect("a tick")),
                2 => room.finish(concert, ann, chrono::DateTime::<chrono::Utc>::MAX_UTC).await.expect("finished"),
                _ => drop(room.place(concert, place.entry).await.expect("a room")),
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    let disagreeing = "SELECT r.concert_id::text FROM queue_rooms r CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE status = 'waiting') AS waiting, count(*) FILTER (WHERE status = 'active') AS active,
                   count(*) FILTER (WHERE status = 'done') AS served, count(*) FILTER (WHERE status = 'expired') AS expired,
                   count(*) FILTER (WHERE status = 'left') AS gone, max(place) AS last_place, max(place) FILTER (WHERE promoted_at IS NOT NULL) AS promoted_to,
                   count(DISTINCT place) AS places
            FROM queue_entries e WHERE e.concert_id = r.concert_id) e
        WHERE (r.waiting, r.active, r.served, r.expired, r.\"left\", r.last_place, r.promoted_to, r.last_place)
              IS DISTINCT FROM (e.waiting, e.active, e.served, e.expired, e.gone, e.last_place, coalesce(e.promoted_to, 0), e.places)";
    assert_eq!(twins.place.texts(disagreeing).await, Vec::<String>::new());
    let counts = twins.rooms[0].counts(twins.concert).await.expect("counts");
    assert!(counts.active <= 30, "{counts:?}");
    assert_eq!(counts.waiting + counts.active + counts.served + counts.left + counts.expired, USERS as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_writes_nothing() {
    let twins = Twins::open(Place::new(), Admission { max_active: 1, ..admission() }).await;
    let (room, concert) = (&twins.rooms[0], twins.concert);
    let first = room.join(concert, user(), fresh()).await.expect("a place").place;
    room.join(concert, user(), fresh()).await.expect("a place");
    assert_eq!(room.tick(concert, PLENTY).await.expect("a tick"), Ticked { promoted: 1, expired: 0 });
    let before = twins.rows().await;
    for room in &twins.rooms {
        assert_eq!(room.tick(concert, PLENTY).await.expect("a tick"), Ticked::default());
        room.open(RoomTerms { concert, sale_starts_at: None, admission: admission() }).await.expect("open");
        room.place(concert, first.entry).await.expect("a room").expect("a place");
        room.counts(concert).await.expect("counts");
    }
    assert_eq!(twins.rows().await, before);
    room.leave(concert, first.entry).await.expect("left");
    assert_ne!(twins.rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_never_goes_back_in_time() {
    let twins = Twins::open(Place::new(), admission()).await;
    let (room, concert) = (&twins.rooms[0], twins.concert);
    let first = room.join(concert, user(), fresh()).await.expect("a place").place;
    room.tick(concert, PLENTY).await.expect("a tick");
    assert_eq!(twins.status(0, first.entry).await, QueueStatus::Active);
    let turn = TimeDelta::seconds(i64::from(ACTIVE_TTL_S));
    twins.place.clock.advance(turn);
    assert_eq!(twins.status(0, first.entry).await, QueueStatus::Expired);
    twins.place.clock.advance(-turn / 2);
    assert_eq!(twins.status(0, first.entry).await, QueueStatus::Expired, "what was told as over does not come back");
    // By its next change the room itself knows how late it is, and so does every instance.
    room.join(concert, user(), fresh()).await.expect("a place");
    assert_eq!(twins.status(1, first.entry).await, QueueStatus::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_is_one_wherever_it_is_set() {
    let twins = Twins::open(Place::new(), admission()).await;
    let concert = twins.concert;
    let paused = Admission {
        mode: AdmissionMode::Paused,
        max_active: 3,
        per_interval: Some(PerInterval { count: 2, seconds: 9 }),
        auto: false,
        adaptive: false,
    };
    assert!(twins.rooms[0].set_admission(concert, admission(), paused).await.expect("an answer"));
    let own = twins.stores.mirror.admission(concert).await.expect("an answer").expect("set");
    assert_eq!(own.admission, paused);
    assert_eq!(twins.stores.queries.catalog().await.expect("a catalogue")[0].admission, paused);
    assert!(!twins.rooms[1].set_admission(concert, admission(), paused).await.expect("an answer"), "it was read before");
    // Set while the places were kept elsewhere, it counts from the next opening.
    let wider = Admission { max_active: 50, ..paused };
    let set = twins.stores.mirror.set_admission(concert, paused, wider).await.expect("an answer").expect("set");
    assert!(set.version > own.version);
    twins.rooms[1].open(RoomTerms { concert, sale_starts_at: None, admission: admission() }).await.expect("open");
    assert_eq!(twins.rooms[0].admission(concert).await.expect("an admission"), wider);
    assert!(twins.rooms[0].set_admission(concert, wider, paused).await.expect("an answer"));
    let last = twins.stores.mirror.admission(concert).await.expect("an answer").expect("set");
    assert!(last.version > set.version && last.admission == paused);
}

/// The server dies in the middle of a crowd. Whoever was told a place has it; whoever was not gets one by asking again.
#[tokio::test(flavor = "multi_thread")]
async fn places_survive_the_server() {
    const USERS: usize = 1_500;
    let mut cluster = Postgres::start().expect("a cluster");
    let twins = Twins::open(Place::on(&cluster), admission()).await;
    let users: Vec<UserId> = (0..USERS).map(|_| user()).collect();
    let mut tasks = JoinSet::new();
    for (at, ann) in users.iter().copied().enumerate() {
        let (room, concert) = (twins.rooms[at % 2].clone(), twins.concert);
        tasks.spawn(async move { (ann, room.join(concert, ann, fresh()).await) });
    }
    let mut told = HashMap::new();
    let mut killed = false;
    while let Some(joined) = tasks.join_next().await {
        let (ann, entered) = joined.expect("no panic");
        if let Ok(entered) = entered {
            told.insert(ann, entered.place.arrival);
        }
        if !killed && !told.is_empty() {
            cluster.kill().expect("killed");
            killed = true;
        }
    }
    cluster.restart().expect("started again");
    assert!(!told.is_empty());
    let mut arrivals = Vec::with_capacity(USERS);
    for (at, ann) in users.into_iter().enumerate() {
        let room = &twins.rooms[at % 2];
        let mut tries = 0;
        let place = loop {
            match room.join(twins.concert, ann, fresh()).await {
                Ok(entered) => break entered.place,
                Err(error) => {
                    tries += 1;
                    assert!(tries < 1_000, "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        assert!(told.get(&ann).is_none_or(|arrival| *arrival == place.arrival), "{:?} and now {}", told.get(&ann), place.arrival);
        arrivals.push(place.arrival);
    }
    arrivals.sort_unstable();
    assert_eq!(arrivals, (1..=USERS as u64).collect::<Vec<_>>());
}

//! The waiting rooms after Redis has lost some or all of their logs: an instance that still has the state begins them
//! again, and never admits too many.

use super::*;
use boxoffice_domain::{Admission, ConcertId, PerInterval, Place, QueueStatus, Stock, Timestamp, UserId};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{Opening, PlaceClaim, RoomError, WaitingRoom};
use chrono::TimeDelta;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

const PLENTY: Stock = Stock { obtainable: 1_000_000, linked: true };
const NOTHING: Stock = Stock { obtainable: 0, linked: true };
/// Longer than any step of these tests needs.
const LONG: Duration = Duration::from_secs(120);

fn at_most(max_active: u32) -> Admission {
    Admission { max_active, ..admission() }
}

/// The claims of a token issued for this place.
fn claim(place: &Place) -> PlaceClaim {
    PlaceClaim { entry: place.entry, user: place.user, lane: place.lane, place: place.arrival, active_until: place.active_until }
}

fn shown(place: &Place) -> (QueueStatus, u64, Option<u64>, Option<Timestamp>) {
    (place.status, place.arrival, place.ahead, place.active_until)
}

/// Retries until there is an answer: Redis may be away for a moment.
async fn until<T, F: Future<Output = Result<T, RoomError>>>(mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(RoomError::Unavailable(error)) => assert!(Instant::now() < deadline, "{error}"),
            Err(error) => panic!("{error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Instances of the room of one concert on a Redis of their own.
struct Site {
    node: Node,
    stores: Stores,
    clock: Arc<SystemClock>,
    opening: Opening,
    concert: ConcertId,
    rooms: Vec<Arc<Rooms>>,
}

impl Site {
    async fn open(admission: Admission) -> Self {
        let clock = Arc::new(SystemClock::default());
        let stores = MemoryStore::new(clock.clone()).stores();
        Self::over(stores, clock, admission).await
    }

    async fn over(stores: Stores, clock: Arc<SystemClock>, admission: Admission) -> Self {
        let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission).await.unwrap()[0].id;
        let opening = Opening { concert, sale_starts_at: None, admission };
        let mut site = Self { node: Node::start().unwrap(), stores, clock, opening, concert, rooms: Vec::new() };
        site.replace_all().await;
        site
    }

    /// Ends all instances and starts two others.
    async fn replace_all(&mut self) {
        self.rooms.clear();
        for _ in 0..2 {
            let room = instance(redis_log(&self.node, &self.clock), &self.stores, self.clock.clone());
            until(|| room.open(self.opening)).await;
            self.rooms.push(room);
        }
    }

    async fn join(&self, at: usize, user: UserId) -> Place {
        until(|| self.rooms[at].join(self.concert, user, None, fresh())).await.place
    }

    async fn join_many(&self, count: usize) -> Vec<Place> {
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            places.push(self.join(0, user()).await);
        }
        places
    }

    async fn tick(&self, at: usize, stock: Stock) -> u64 {
        until(|| self.rooms[at].tick(self.concert, stock)).await.promoted
    }

    /// The place as both instances see it in the log.
    async fn touch(&self, entry: &Place) -> Option<Place> {
        let mut found = Vec::new();
        for room in &self.rooms {
            found.push(until(|| room.touch(self.concert, entry.entry)).await);
        }
        assert_eq!(found[0].as_ref().map(shown), found[1].as_ref().map(shown));
        found.pop().flatten()
    }

    async fn restore(&self, claim: PlaceClaim) -> Option<Place> {
        until(|| self.rooms[1].restore(self.concert, claim)).await
    }

    async fn active(&self) -> u64 {
        until(|| self.rooms[1].counts(self.concert)).await.active
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_survives_begins_the_room_again_without_any_loss() {
    let mut site = Site::open(at_most(4)).await;
    let places = site.join_many(10).await;
    assert_eq!(site.tick(0, PLENTY).await, 4);
    site.rooms[1].leave(site.concert, places[5].entry).await.unwrap();
    site.rooms[1].finish(site.concert, places[0].user, Timestamp::MAX_UTC).await.unwrap();
    let mut before = Vec::new();
    for place in &places {
        before.push(site.touch(place).await.expect("a place"));
    }
    for restarts in [false, true] {
        if restarts {
            site.node.kill().unwrap();
            let gone = site.rooms[0].touch(site.concert, places[0].entry).await;
            assert!(matches!(gone, Err(RoomError::Unavailable(_))), "{gone:?}");
            site.node.restart().unwrap();
        } else {
            site.node.flush().unwrap();
        }
        site.tick(1, NOTHING).await;
        site.tick(0, NOTHING).await;
        for (place, before) in places.iter().zip(&before) {
            let now = site.touch(place).await.expect("a place");
            let status = if before.status == QueueStatus::Waiting { QueueStatus::SoldOut } else { before.status };
            assert_eq!(shown(&now), (status, before.arrival, before.ahead, before.active_until));
        }
        let counts = site.rooms[0].counts(site.concert).await.unwrap();
        assert_eq!((counts.active, counts.served, counts.left), (3, 1, 1));
    }
    let newcomer = site.join(1, user()).await;
    assert!(newcomer.arrival > 10, "{newcomer:?}");
    assert_eq!(site.tick(0, PLENTY).await, 1, "promotion goes on, into the free slot");
    assert_eq!(site.touch(&places[4]).await.expect("a place").status, QueueStatus::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_was_ahead_appends_what_the_one_that_began_the_room_did_not_know() {
    let site = Site::open(at_most(1)).await;
    let known = site.join_many(3).await;
    site.tick(1, NOTHING).await;
    // The second instance never reads these.
    let unknown = site.join_many(3).await;
    site.node.flush().unwrap();
    let newcomer = site.join(1, user()).await;
    assert!(newcomer.arrival > 6, "a place that another instance may have given out is not given out again: {newcomer:?}");
    let after = site.join(0, user()).await;
    assert!(after.arrival > newcomer.arrival);
    for place in known.iter().chain(&unknown) {
        let now = site.touch(place).await.expect("it was restored");
        assert_eq!((now.arrival, now.user), (place.arrival, place.user));
    }
    assert_eq!(site.touch(&newcomer).await.expect("a place").ahead, Some(6));
    site.tick(0, PLENTY).await;
    assert_eq!(site.touch(&known[0]).await.expect("a place").status, QueueStatus::Active);
}

/// As after a fail-over to a replica that was behind: the log is there, its latest records are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_from_an_old_file_gets_the_records_it_lost() {
    let mut site = Site::open(at_most(1)).await;
    let kept = site.join_many(3).await;
    site.tick(0, PLENTY).await;
    let turn = site.touch(&kept[0]).await.expect("a turn");
    assert_eq!(site.node.command(&["SAVE"]).unwrap(), "+OK");
    let lost = site.join_many(3).await;
    site.tick(1, PLENTY).await;
    site.node.kill().unwrap();
    site.node.restart().unwrap();
    let newcomer = site.join(0, user()).await;
    assert_eq!(shown(&site.touch(&kept[0]).await.expect("a turn")), shown(&turn));
    for place in kept[1..].iter().chain(&lost) {
        assert_eq!(site.touch(place).await.expect("a place").arrival, place.arrival);
    }
    assert!(newcomer.arrival > 6, "{newcomer:?}");
    assert_eq!(site.touch(&newcomer).await.expect("a place").ahead, Some(5));
}

/// Redis and all instances are lost: the mirror and the users' tokens are left.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_without_log_and_replicas_comes_back_from_the_mirror_and_by_tokens() {
    let mut site = Site::open(at_most(4)).await;
    let places = site.join_many(10).await;
    assert_eq!(site.tick(0, PLENTY).await, 4);
    let turns = [site.touch(&places[0]).await.expect("a turn"), site.touch(&places[1]).await.expect("a turn")];
    site.rooms[0].finish(site.concert, places[1].user, Timestamp::MAX_UTC).await.unwrap();
    site.rooms[0].leave(site.concert, places[2].entry).await.unwrap();
    site.tick(0, NOTHING).await;
    site.node.flush().unwrap();
    let began = Instant::now();
    site.replace_all().await;
    assert_eq!(site.active().await, 2);
    println!("rebuilt within {:?}", began.elapsed());

    // Turns last to the same instant as before, also of users that have not come back.
    assert_eq!(site.touch(&places[0]).await.expect("a turn").active_until, turns[0].active_until);
    assert_eq!(site.touch(&places[3]).await.expect("a turn").status, QueueStatus::Active);
    for ended in [&places[1], &turns[1], &places[2]] {
        assert_eq!(site.restore(claim(ended)).await, None, "place {} has ended", ended.arrival);
    }
    let newcomer = site.join(1, user()).await;
    assert!(newcomer.arrival > 10, "{newcomer:?}");
    for at in [8, 5, 9, 6, 7, 4] {
        let back = site.restore(claim(&places[at])).await.expect("a place");
        assert!(back.status.is_waiting());
        assert_eq!((back.entry, back.arrival), (places[at].entry, places[at].arrival));
    }
    assert_eq!(site.touch(&newcomer).await.expect("a place").ahead, Some(6));
    assert_eq!(site.tick(1, PLENTY).await, 2, "into the free slots and no more");
    for (at, expected) in [(4, QueueStatus::Active), (5, QueueStatus::Active), (6, QueueStatus::Waiting)] {
        assert_eq!(site.touch(&places[at]).await.expect("a place").status, expected, "in order of place");
    }
    let foreign = PlaceClaim { entry: fresh(), user: user(), ..claim(&places[8]) };
    assert_eq!(site.restore(foreign).await, None, "the place belongs to another user");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_did_not_come_back_after_the_first_loss_comes_back_after_the_second() {
    let mut site = Site::open(at_most(1)).await;
    let places = site.join_many(6).await;
    site.tick(0, PLENTY).await;
    site.rooms[0].leave(site.concert, places[0].entry).await.unwrap();
    site.tick(0, NOTHING).await;
    site.node.flush().unwrap();
    site.replace_all().await;
    // Only the last one is quick, and gets the free turn.
    site.restore(claim(&places[5])).await.expect("a place");
    assert_eq!(site.tick(0, PLENTY).await, 1);
    let turn = site.touch(&places[5]).await.expect("a turn");
    site.tick(0, NOTHING).await;
    // Again, within half an hour.
    site.clock.advance(TimeDelta::minutes(5));
    site.node.flush().unwrap();
    site.replace_all().await;
    assert_eq!(shown(&site.touch(&places[5]).await.expect("a turn")), shown(&turn));
    for at in [3, 1, 2, 4] {
        let back = site.restore(claim(&places[at])).await.expect("the place is kept");
        assert_eq!(back.arrival, places[at].arrival);
    }
    assert_eq!(site.touch(&places[1]).await.expect("a place").ahead, Some(0));
    assert_eq!(site.tick(1, PLENTY).await, 0, "never too many");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_place_is_given_twice_even_without_a_tick() {
    let mut site = Site::open(admission()).await;
    let mut highest = 0;
    for round in 0..3 {
        // More places than are reserved at first.
        let mut tasks = JoinSet::new();
        for at in 0..1_500 {
            let (room, concert) = (site.rooms[at % 2].clone(), site.concert);
            tasks.spawn(async move { until(|| room.join(concert, user(), None, fresh())).await.place.arrival });
        }
        let arrivals = tasks.join_all().await;
        assert!(arrivals.iter().all(|arrival| *arrival > highest), "round {round}");
        assert_eq!(arrivals.iter().collect::<HashSet<_>>().len(), arrivals.len());
        highest = arrivals.into_iter().max().unwrap_or(0);
        site.node.flush().unwrap();
        site.replace_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_place_for_each_user_while_all_come_back_at_once() {
    const USERS: usize = 60;
    let mut site = Site::open(at_most(5)).await;
    let places = site.join_many(USERS).await;
    site.tick(0, PLENTY).await;
    site.node.flush().unwrap();
    site.replace_all().await;
    let mut tasks = JoinSet::new();
    for place in places.iter().skip(5) {
        for at in 0..4 {
            let (room, concert, claim) = (site.rooms[at / 2].clone(), site.concert, claim(place));
            tasks.spawn(async move {
                if at % 2 == 1 {
                    Some(until(|| room.join(concert, claim.user, None, fresh())).await.place)
                } else {
                    until(|| room.restore(concert, claim)).await
                }
            });
        }
    }
    tasks.join_all().await;
    for place in &places[5..] {
        let mine = site.join(0, place.user).await;
        assert_eq!((mine.entry, mine.arrival), (place.entry, place.arrival), "the place is the one from before the loss");
    }
    let counts = site.rooms[0].counts(site.concert).await.unwrap();
    assert_eq!((counts.waiting, counts.active), (USERS as u64 - 5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_set_while_redis_is_away_is_obeyed_when_it_is_back() {
    let mut site = Site::open(at_most(1)).await;
    site.join_many(4).await;
    assert_eq!(site.tick(0, PLENTY).await, 1);
    site.node.kill().unwrap();
    let set = site.rooms[0].set_admission(site.concert, at_most(1), at_most(3)).await;
    assert!(matches!(set, Err(RoomError::Unavailable(_))), "{set:?}");
    // The catalogue has it from now on.
    site.opening.admission = at_most(3);
    for room in &site.rooms {
        assert!(room.open(site.opening).await.is_err(), "a refresh while Redis is away fails");
    }
    site.node.restart().unwrap();
    for room in &site.rooms {
        until(|| room.open(site.opening)).await;
        assert_eq!(room.admission(site.concert).await.unwrap(), at_most(3));
    }
    assert_eq!(site.tick(1, PLENTY).await, 2);
    assert!(site.rooms[1].set_admission(site.concert, at_most(3), at_most(4)).await.unwrap(), "and can be changed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_room_is_not_taken_for_a_lost_one_and_a_lost_one_waits_for_returns() {
    let mut site = Site::open(admission()).await;
    let start = site.clock.now() + TimeDelta::seconds(3);
    site.opening.sale_starts_at = Some(start);
    // No user has joined: nothing is lost with Redis.
    site.node.flush().unwrap();
    site.replace_all().await;
    let ann = site.join(0, user()).await;
    assert_eq!(ann.status, QueueStatus::PreSale);
    site.clock.advance(TimeDelta::seconds(4));
    assert_eq!(site.tick(0, PLENTY).await + site.tick(0, PLENTY).await, 1, "two ticks after the start");
    // Lost before its list was drawn, it waits for the users on the list.
    let mut site = Site::open(admission()).await;
    site.opening.sale_starts_at = Some(site.clock.now() + TimeDelta::seconds(30));
    site.replace_all().await;
    let ben = site.join(0, user()).await;
    site.clock.advance(TimeDelta::seconds(29));
    site.node.flush().unwrap();
    site.replace_all().await;
    site.clock.advance(TimeDelta::seconds(10));
    site.tick(0, PLENTY).await;
    site.tick(0, PLENTY).await;
    let back = site.restore(claim(&ben)).await.expect("on the list");
    assert_eq!(back.status, QueueStatus::PreSale, "the list is open for returns");
    site.clock.advance(TimeDelta::seconds(10));
    assert_eq!(site.tick(0, PLENTY).await + site.tick(0, PLENTY).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_unavailable_and_comes_back_by_itself() {
    let site = Site::open(admission()).await;
    let ann = site.join(0, user()).await;
    site.tick(0, PLENTY).await;
    site.node.pause().unwrap();
    let hung = site.rooms[1].touch(site.concert, ann.entry).await;
    assert!(matches!(hung, Err(RoomError::Unavailable(_))), "{hung:?}");
    site.node.resume().unwrap();
    assert_eq!(site.touch(&ann).await.expect("a turn").status, QueueStatus::Active);
}

/// One visitor of the test below: joins, restores the place by its token when it is gone, has a turn, leaves.
async fn visit(room: Arc<Rooms>, concert: ConcertId, done: Arc<AtomicU64>) -> (u64, Timestamp) {
    let me = user();
    let place = until(|| room.join(concert, me, None, fresh())).await.place;
    let mut token = claim(&place);
    let end = loop {
        // `restore` begins with a touch.
        match until(|| room.restore(concert, token)).await {
            Some(place) if place.status == QueueStatus::Active => break place.active_until.expect("a turn"),
            Some(place) => {
                assert!(!place.status.is_ended(), "{place:?}");
                assert_eq!((place.entry, place.arrival), (token.entry, token.place));
                token = claim(&place);
            }
            None => panic!("the place is gone: {token:?}"),
        }
        sleep(Duration::from_millis(5)).await;
    };
    until(|| room.leave(concert, token.entry)).await;
    done.fetch_add(1, Ordering::SeqCst);
    (token.place, end)
}

/// I4, sampled throughout: two instances tick, users join and leave, and Redis loses everything several times.
#[tokio::test(flavor = "multi_thread")]
async fn never_too_many_nor_too_fast_whenever_redis_forgets() {
    const USERS: usize = 240;
    const LOSSES: u64 = 4;
    const MAX_ACTIVE: u32 = 7;
    let rate = PerInterval { count: 40, seconds: 1 };
    let clock = Arc::new(SystemClock::default());
    let store = postgres_store(&database(), &clock).await;
    let site = Site::over(store.stores(), clock, Admission { per_interval: Some(rate), ..at_most(MAX_ACTIVE) }).await;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut background = JoinSet::new();
    for room in site.rooms.clone() {
        let (concert, stop) = (site.concert, stop.clone());
        background.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                // A loss shows as a short unavailability.
                let _ = room.tick(concert, PLENTY).await;
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let mut visitors = JoinSet::new();
    for at in 0..USERS {
        visitors.spawn(visit(site.rooms[at % 2].clone(), site.concert, done.clone()));
    }
    let (mut losses, mut full, deadline) = (0, false, Instant::now() + LONG);
    while done.load(Ordering::SeqCst) < USERS as u64 {
        assert!(Instant::now() < deadline, "{} of {USERS} have been let in", done.load(Ordering::SeqCst));
        if let Ok(counts) = site.rooms[losses as usize % 2].counts(site.concert).await {
            assert!(counts.active <= u64::from(MAX_ACTIVE), "{} are active", counts.active);
            full |= counts.active == u64::from(MAX_ACTIVE);
        }
        if losses < LOSSES && done.load(Ordering::SeqCst) >= (losses + 1) * USERS as u64 / (LOSSES + 1) {
            site.node.flush().unwrap();
            losses += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let visits = visitors.join_all().await;
    assert!(full && losses == LOSSES, "the limit was reached, and Redis lost everything");
    assert_eq!(visits.iter().map(|(place, _)| *place).collect::<HashSet<_>>().len(), USERS, "distinct places");
    // All turns are equally long, so their ends are as far apart as the promotions were.
    let mut ends: Vec<_> = visits.into_iter().map(|(_, end)| end).collect();
    ends.sort_unstable();
    for group in ends.windows(rate.count as usize + 1) {
        let span = group[group.len() - 1] - group[0];
        assert!(span >= TimeDelta::seconds(i64::from(rate.seconds)), "{} promotions within {span}", group.len());
    }
}

//! The waiting room after Redis has forgotten it: rebuilt from mirror and tokens, never with too many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use boxoffice_domain::PerInterval;
use boxoffice_ports::{ActivePlace, RoomMark};
use chrono::TimeDelta;
use tokio::time::{Instant, sleep, timeout};

use super::model::PinnedClock;
use super::*;

/// Longer than anything here needs.
const LONG: Duration = Duration::from_secs(120);

fn at_most(max_active: u32) -> Admission {
    Admission { max_active, ..admission() }
}

async fn pair(admission: Admission) -> (Server, Arc<Pair>) {
    let node = Server::start().expect("Redis starts");
    let pair = Pair::open(&[node.url()], admission).await;
    (node, pair)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_room_comes_back_from_the_mirror_and_by_tokens() {
    let (node, pair) = pair(at_most(4)).await;
    let places = pair.join_many(10).await;
    assert_eq!(pair.tick(PLENTY).await.promoted, 4);
    let turns = [pair.place(places[0].entry).await.expect("a place"), pair.place(places[1].entry).await.expect("a place")];
    pair.rooms[0].finish(pair.concert, places[1].user, Timestamp::MAX_UTC).await.expect("finished");
    let left = pair.place(places[2].entry).await.expect("a place");
    assert_eq!(pair.tick(Stock { obtainable: 0, linked: true }).await.promoted, 0, "the mirror knows of the payment");
    // Leaving waits for the mirror, without a tick.
    pair.rooms[1].leave(pair.concert, places[2].entry).await.expect("left");
    pair.rooms[1].leave(pair.concert, places[4].entry).await.expect("left");
    node.flush().expect("flushed");

    // Whoever had a turn has it still, to the same instant; nobody had to come back for that.
    assert_eq!(pair.place(places[0].entry).await.expect("a place").active_until, turns[0].active_until);
    assert_eq!(pair.status(places[3].entry).await, Some(QueueStatus::Active));
    // Whose turn had ended gets nothing by an old token, whichever they kept.
    for place in [&places[1], &turns[1], &places[2], &left] {
        assert_eq!(pair.restore(claim(place)).await, None, "place {}", place.arrival);
    }
    // Who waited comes back to where they were, in whatever order; nobody gets a place that was given out.
    let newcomer = pair.join(user()).await;
    assert!(newcomer.arrival > 10, "place {}", newcomer.arrival);
    for at in [8, 5, 9, 6, 7] {
        let back = pair.restore(claim(&places[at])).await.expect("a place");
        assert_eq!((back.status, back.arrival), (QueueStatus::Waiting, places[at].arrival));
    }
    assert_eq!(pair.place(newcomer.entry).await.expect("a place").ahead, Some(5));
    assert_eq!(pair.place(places[5].entry).await.expect("a place").ahead, Some(0));
    let counts = pair.counts().await;
    assert_eq!((counts.waiting, counts.active, counts.served), (6, 2, 1));
    assert_eq!(pair.tick(PLENTY).await.promoted, 2, "into the free slots and no more");
    assert_eq!(pair.status(places[6].entry).await, Some(QueueStatus::Active), "in order of place");
    assert_eq!(pair.status(places[7].entry).await, Some(QueueStatus::Waiting));
    // Somebody whose place was passed meanwhile is not told that it has ended.
    let late = pair.restore(claim(&places[4])).await.expect("left while waiting: the place can be had again");
    assert_eq!((late.status, late.ahead), (QueueStatus::Waiting, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_not_passed_by_when_the_lost_are_no_longer_waited_for() {
    let (node, pair) = pair(at_most(1)).await;
    let places = pair.join_many(6).await;
    pair.tick(PLENTY).await;
    pair.rooms[0].leave(pair.concert, places[0].entry).await.expect("left");
    node.flush().expect("flushed");
    pair.restore(claim(&places[5])).await.expect("a place");
    assert_eq!(pair.tick(PLENTY).await.promoted, 1, "the only one who is there");
    pair.restore(claim(&places[2])).await.expect("a place");
    pair.clock.advance(TimeDelta::minutes(31));
    pair.tick(Stock { obtainable: 0, linked: true }).await;
    node.flush().expect("flushed");
    assert_eq!(pair.restore(claim(&places[2])).await.expect("it was still waiting").status, QueueStatus::Waiting);
    assert_eq!(pair.restore(claim(&places[1])).await, None, "passed by");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_ended_during_the_loss_is_over() {
    let (node, pair) = pair(at_most(2)).await;
    let places = pair.join_many(3).await;
    pair.tick(PLENTY).await;
    let turn = pair.place(places[0].entry).await.expect("a place");
    node.flush().expect("flushed");
    pair.clock.advance(TimeDelta::seconds(i64::from(TURN_S) + 1));
    assert_eq!(pair.status(places[0].entry).await, Some(QueueStatus::Expired));
    assert!(pair.restore(claim(&turn)).await.is_none_or(|place| place.status == QueueStatus::Expired));
    pair.restore(claim(&places[2])).await.expect("a place");
    assert_eq!(pair.tick(PLENTY).await.promoted, 1);
    assert_eq!(pair.counts().await.expired, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_place_is_given_twice_even_without_a_tick() {
    let (node, pair) = pair(admission()).await;
    let mut highest = 0;
    for round in 0..3 {
        // More than are reserved at first.
        let mut tasks = JoinSet::new();
        for at in 0..1_500 {
            let pair = Arc::clone(&pair);
            tasks.spawn(async move { pair.join_at(at, user()).await.place.arrival });
        }
        let arrivals = tasks.join_all().await;
        assert!(arrivals.iter().all(|arrival| *arrival > highest), "round {round}");
        highest = arrivals.into_iter().max().unwrap_or(0);
        node.flush().expect("flushed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_place_for_each_user_while_all_come_back_at_once() {
    const USERS: usize = 60;
    let (node, pair) = pair(at_most(5)).await;
    let places = pair.join_many(USERS).await;
    pair.tick(PLENTY).await;
    node.flush().expect("flushed");
    let mut tasks = JoinSet::new();
    for place in places.iter().skip(5) {
        for at in 0..4 {
            let (pair, claim) = (Arc::clone(&pair), claim(place));
            tasks.spawn(async move {
                if at % 2 == 1 {
                    return Some(pair.join_at(at / 2, claim.user).await.place.entry);
                }
                loop {
                    match pair.rooms[at / 2].restore(pair.concert, claim).await {
                        Ok(place) => return place.map(|place| place.entry),
                        // On a busy machine the other instance may still be rebuilding.
                        Err(RoomError::Unavailable(_)) => sleep(Duration::from_millis(20)).await,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    }
    let mut entries: HashSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    entries.extend(places.iter().map(|place| place.entry));
    let mut users = HashSet::new();
    for entry in entries {
        if let Some(place) = pair.place(entry).await.filter(|place| !place.status.is_ended()) {
            assert!(users.insert(place.user), "two places of one user");
        }
    }
    assert_eq!(users.len(), USERS);
    let counts = pair.counts().await;
    assert_eq!((counts.waiting, counts.active), (USERS as u64 - 5, 5));
    for place in &places[5..] {
        let mine = pair.join(place.user).await;
        assert_eq!((mine.entry, mine.arrival), (place.entry, place.arrival), "the place is the one from before the loss");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_stays_of_a_user_the_later_is_kept() {
    let (node, pair) = pair(at_most(1)).await;
    let earlier = pair.join(user()).await;
    pair.join_many(2).await;
    pair.rooms[0].leave(pair.concert, earlier.entry).await.expect("left");
    let later = pair.join(earlier.user).await;
    node.flush().expect("flushed");
    assert!(pair.restore(claim(&earlier)).await.is_some(), "nothing says yet that it ended");
    let back = pair.restore(claim(&later)).await.expect("a place");
    assert_eq!((back.entry, back.arrival), (later.entry, later.arrival));
    assert_eq!(pair.status(earlier.entry).await, Some(QueueStatus::Left));
    assert_eq!(pair.counts().await.waiting, 1);
    node.flush().expect("flushed");
    pair.restore(claim(&later)).await.expect("a place");
    assert_eq!(pair.restore(claim(&earlier)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_lost_is_not_given_back() {
    let (_node, pair) = pair(admission()).await;
    let known = pair.join(user()).await;
    let forged = PlaceClaim { entry: fresh(), user: user(), place: 1, active_until: None };
    assert_eq!(pair.restore(forged).await, None, "nothing was lost");
    assert_eq!(pair.restore(claim(&known)).await, Some(known));
}

/// As after a fail-over to a replica that was behind: the epoch is there, the latest joins are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_latest_changes_gives_no_place_twice_and_gives_back() {
    let (mut node, pair) = pair(at_most(1)).await;
    let kept = pair.join_many(3).await;
    pair.tick(PLENTY).await;
    assert_eq!(node.command(&["SAVE"]).expect("an answer"), "+OK");
    let lost = pair.join_many(3).await;
    node.kill().expect("killed");
    node.restart().expect("Redis starts");
    timeout(LONG, async {
        for room in &pair.rooms {
            while room.counts(pair.concert).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        }
    })
    .await
    .expect("it comes back");
    assert_eq!(pair.status(kept[0].entry).await, Some(QueueStatus::Active), "what was saved is there");
    // An instance that has seen nothing learns it from a token, one that gave the places out knows it.
    let back = pair.restore(claim(&lost[1])).await.expect("a place");
    assert_eq!((back.status, back.arrival, back.ahead), (QueueStatus::Waiting, 5, Some(2)));
    let newcomer = pair.join(user()).await;
    assert_eq!(newcomer.arrival, 7);
    for place in [&lost[0], &lost[2]] {
        assert_eq!(pair.restore(claim(place)).await.expect("a place").arrival, place.arrival);
    }
    assert_eq!(pair.place(newcomer.entry).await.expect("a place").ahead, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_are_over_take_no_slot_from_those_that_run() {
    let (node, pair) = pair(at_most(1)).await;
    let now = pair.clock.now();
    let turn = |place, ends_in_s| ActivePlace {
        entry: fresh(),
        user: user(),
        place,
        promoted_at: now - TimeDelta::seconds(700 - i64::try_from(place).unwrap_or(0)),
        active_until: now + TimeDelta::seconds(ends_in_s),
    };
    let (over, running) = (turn(1, -1), turn(2, 300));
    let mark = RoomMark { last_place: 1_000, promoted_to: 2, ..RoomMark::default() };
    pair.store.save(pair.concert, mark, vec![over, running], Vec::new()).await.expect("saved");
    node.flush().expect("flushed");
    assert_eq!(pair.status(running.entry).await, Some(QueueStatus::Active));
    assert_eq!(pair.status(over.entry).await, Some(QueueStatus::Expired));
    assert_eq!(pair.counts().await.expired, 1);
    pair.tick(PLENTY).await;
    let (_, kept) = pair.store.load(pair.concert).await.expect("a store").expect("a mark");
    assert_eq!(kept.iter().map(|turn| turn.entry).collect::<Vec<_>>(), [running.entry], "the mirror forgets the other");
}

/// A mirror that is older than the room, as after it was put back from a copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_turn_that_the_mirror_does_not_know_goes_on_if_there_is_room() {
    let (node, pair) = pair(at_most(2)).await;
    let places = pair.join_many(4).await;
    pair.tick(PLENTY).await;
    let mut turns = Vec::new();
    for place in &places[..2] {
        turns.push(pair.place(place.entry).await.expect("a place"));
    }
    node.flush().expect("flushed");
    let older = MemoryStore::new(pair.clock.clone());
    let mark = RoomMark { last_place: 1_000, ..RoomMark::default() };
    older.save(pair.concert, mark, Vec::new(), Vec::new()).await.expect("saved");
    let room = instance(&[node.url()], older.clone(), pair.clock.clone());
    room.open(RoomTerms { admission: at_most(1), ..pair.terms }).await.expect("a room");
    let back = room.restore(pair.concert, claim(&turns[1])).await.expect("an answer").expect("a place");
    assert_eq!((back.status, back.active_until), (QueueStatus::Active, turns[1].active_until));
    assert_eq!(older.load(pair.concert).await.expect("a store").expect("a mark").1.len(), 1, "the mirror knows");
    let back = room.restore(pair.concert, claim(&turns[0])).await.expect("an answer").expect("a place");
    assert_eq!((back.status, back.ahead, back.arrival), (QueueStatus::Waiting, Some(0), 1), "no room: it waits in front");
    let over = PlaceClaim { active_until: Some(pair.clock.now() - TimeDelta::seconds(1)), ..claim(&places[2]) };
    assert_eq!(room.restore(pair.concert, over).await.expect("an answer"), None, "a turn that is over has ended");
}

/// One step stopped on its way: before the mirror has it, or before it is confirmed.
async fn a_step_interrupted(after_save: bool) {
    let (node, pair) = pair(at_most(2)).await;
    let places = pair.join_many(6).await;
    let gate = pair.mirror.stop(after_save);
    let stepping = tokio::spawn({
        let pair = Arc::clone(&pair);
        async move { pair.rooms[0].tick(pair.concert, PLENTY).await }
    });
    timeout(LONG, gate.arrived.notified()).await.expect("it saves");
    assert_eq!(pair.counts().await.active, 0, "nobody goes before the mirror knows");
    assert_eq!(pair.status(places[0].entry).await, Some(QueueStatus::Waiting));
    node.flush().expect("flushed");
    // The other instance rebuilds; the first two do not come back yet, and two others go.
    let other = &pair.rooms[1];
    for place in &places[2..] {
        other.restore(pair.concert, claim(place)).await.expect("an answer").expect("a place");
    }
    let promoted = other.tick(pair.concert, PLENTY).await.expect("a tick").promoted;
    let active = pair.counts().await.active;
    assert_eq!((promoted, active), if after_save { (0, 2) } else { (2, 2) });
    gate.go.notify_one();
    let late = stepping.await.expect("no panic").expect("a tick");
    assert_eq!(late.promoted, 0, "another epoch");
    assert_eq!(pair.counts().await.active, 2);
    for place in &places[..2] {
        let back = pair.restore(claim(place)).await.expect("what the late one said of another epoch does not count");
        assert!(!back.status.is_ended());
    }
    // All that the mirror has heard by now, and one more loss.
    node.flush().expect("flushed");
    for _ in 0..3 {
        for room in &pair.rooms {
            room.tick(pair.concert, PLENTY).await.expect("a tick");
        }
        assert_eq!(pair.counts().await.active, 2);
    }
    for place in &places {
        let back = pair.restore(claim(place)).await.expect("nobody has lost the place");
        assert!(!back.status.is_ended());
    }
    let counts = pair.counts().await;
    assert_eq!((counts.waiting, counts.active), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_before_the_mirror_knows_lets_nobody_in_twice() {
    a_step_interrupted(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_before_the_confirmation_lets_nobody_in_twice() {
    a_step_interrupted(true).await;
}

/// The mirror hears of the end before it hears of the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_while_the_mirror_is_told_has_left_after_a_loss_too() {
    let (node, pair) = pair(at_most(2)).await;
    let places = pair.join_many(2).await;
    let gate = pair.mirror.stop(false);
    let stepping = tokio::spawn({
        let pair = Arc::clone(&pair);
        async move { pair.rooms[0].tick(pair.concert, PLENTY).await }
    });
    timeout(LONG, gate.arrived.notified()).await.expect("it saves");
    pair.rooms[1].leave(pair.concert, places[0].entry).await.expect("left");
    // So late that the other instance has taken over, and told the mirror that it ended.
    let relieved = async {
        while pair.rooms[1].tick(pair.concert, PLENTY).await.expect("a tick").promoted == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, relieved).await.expect("the other one goes on");
    gate.go.notify_one();
    assert_eq!(stepping.await.expect("no panic").expect("a tick").promoted, 0);
    assert_eq!(pair.status(places[0].entry).await, Some(QueueStatus::Left));
    pair.tick(PLENTY).await;
    node.flush().expect("flushed");
    assert_eq!(pair.restore(claim(&places[0])).await, None);
    assert_eq!(pair.counts().await.active, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_died_on_the_way_is_relieved() {
    let (_node, pair) = pair(at_most(2)).await;
    let places = pair.join_many(3).await;
    let gate = pair.mirror.stop(false);
    let stepping = tokio::spawn({
        let pair = Arc::clone(&pair);
        async move { pair.rooms[0].tick(pair.concert, PLENTY).await }
    });
    timeout(LONG, gate.arrived.notified()).await.expect("it saves");
    let (asked, saves) = (Instant::now(), pair.mirror.saves.load(Ordering::SeqCst));
    let other = pair.rooms[1].tick(pair.concert, PLENTY).await.expect("a tick");
    // The right runs out after two seconds, which a busy machine may take for this.
    if asked.elapsed() < Duration::from_secs(1) {
        assert_eq!((other.promoted, pair.mirror.saves.load(Ordering::SeqCst)), (0, saves), "one instance at a time tells the mirror");
    }
    stepping.abort();
    let relieved = async {
        while pair.rooms[1].tick(pair.concert, PLENTY).await.expect("a tick").promoted == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, relieved).await.expect("the other one goes on");
    assert_eq!(pair.counts().await.active, 2);
    assert_eq!(pair.status(places[1].entry).await, Some(QueueStatus::Active));
}

/// The only one who knows of the promotion is gone, and so is the turn that the mirror knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_over_a_loss_that_nobody_remembers() {
    let node = Server::start().expect("Redis starts");
    let clock = PinnedClock::new();
    let store = MemoryStore::new(clock.clone());
    let admission = Admission { per_interval: Some(PerInterval { count: 1, seconds: 3 }), ..admission() };
    let plan = boxoffice_ports::contract::build::demo_plan(clock.now());
    let concert = store.stores().catalog.import(vec![plan], admission).await.expect("an import")[0].id;
    let terms = RoomTerms { concert, sale_starts_at: None, admission };
    let urls = [node.url()];
    let first = instance(&urls, store.clone(), clock.clone());
    first.open(terms).await.expect("a room");
    let ann = first.join(concert, user(), fresh()).await.expect("a place").place;
    let ben = first.join(concert, user(), fresh()).await.expect("a place").place;
    assert_eq!(first.tick(concert, PLENTY).await.expect("a tick").promoted, 1);
    first.leave(concert, ann.entry).await.expect("left");
    node.flush().expect("flushed");
    let second = instance(&urls, store.clone(), clock.clone());
    second.open(terms).await.expect("a room");
    second.restore(concert, claim(&ben)).await.expect("an answer").expect("a place");
    assert_eq!(second.tick(concert, PLENTY).await.expect("a tick").promoted, 0, "within three seconds of the first");
    clock.advance(TimeDelta::seconds(4));
    assert_eq!(second.tick(concert, PLENTY).await.expect("a tick").promoted, 1, "it goes on within five seconds");
}

/// What it has read of the mirror is old by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_is_too_late_builds_nothing() {
    for is_lost_again in [false, true] {
        let (node, pair) = pair(admission()).await;
        pair.join_many(3).await;
        node.flush().expect("flushed");
        let gate = pair.mirror.stop_load();
        let building = tokio::spawn({
            let pair = Arc::clone(&pair);
            async move { pair.rooms[0].open(pair.terms).await }
        });
        timeout(LONG, gate.arrived.notified()).await.expect("it loads");
        // As when its claim has run out.
        let claim = format!("boxoffice:room:{{{}}}:building", pair.concert);
        node.command(&["DEL", &claim]).expect("an answer");
        let mut joins = JoinSet::new();
        for _ in 0..1_500 {
            let pair = Arc::clone(&pair);
            joins.spawn(async move { pair.join_at(1, user()).await.place.arrival });
        }
        let highest = joins.join_all().await.into_iter().max().expect("somebody joined");
        if is_lost_again {
            node.flush().expect("flushed");
        }
        gate.go.notify_one();
        let late = building.await.expect("no panic");
        assert!(matches!(late, Err(RoomError::Unavailable(_))), "{late:?}");
        // An instance that has seen none of these places.
        let another = instance(&[node.url()], pair.store.clone(), pair.clock.clone());
        another.open(pair.terms).await.expect("a room");
        let next = another.join(pair.concert, user(), fresh()).await.expect("a place").place.arrival;
        assert!(next > highest, "place {next} was given out before {highest}");
        let waiting = if is_lost_again { 1 } else { 1_501 };
        assert_eq!(pair.counts().await.waiting, waiting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_rebuilds() {
    let (node, pair) = pair(at_most(3)).await;
    pair.join_many(9).await;
    pair.tick(PLENTY).await;
    let loads = pair.mirror.loads.load(Ordering::SeqCst);
    node.flush().expect("flushed");
    let mut tasks = JoinSet::new();
    for at in 0..40 {
        let pair = Arc::clone(&pair);
        tasks.spawn(async move {
            match at % 4 {
                0 | 1 => pair.rooms[at % 2].tick(pair.concert, PLENTY).await.map(|_| ()),
                _ => pair.rooms[at % 2].open(pair.terms).await,
            }
        });
    }
    for done in tasks.join_all().await {
        done.expect("it is there");
    }
    assert_eq!(pair.mirror.loads.load(Ordering::SeqCst), loads + 1);
    assert_eq!(pair.counts().await.active, 3);
}

/// What a visitor of the day below does: joins, comes back by the token whenever the place is gone, has a turn, leaves.
async fn visit(pair: &Pair, at: usize, done: &AtomicU64) -> (u64, Timestamp) {
    let room = &pair.rooms[at % 2];
    let me = user();
    let place = loop {
        match room.join(pair.concert, me, fresh()).await {
            Ok(entered) => break entered.place,
            Err(RoomError::Unavailable(_)) => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let mut token = claim(&place);
    let until = loop {
        let seen = match room.touch(pair.concert, token.entry).await {
            Ok(None) => room.restore(pair.concert, token).await.map(|back| back.expect("the place comes back")),
            Ok(Some(place)) => Ok(place),
            Err(error) => Err(error),
        };
        match seen {
            Ok(place) if place.status == QueueStatus::Active => break place.active_until.expect("a turn"),
            Ok(place) => {
                assert!(!place.status.is_ended(), "{place:?}");
                assert_eq!((place.entry, place.arrival), (token.entry, token.place));
                token = claim(&place);
            }
            Err(RoomError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    };
    while room.leave(pair.concert, token.entry).await.is_err() {
        sleep(Duration::from_millis(5)).await;
    }
    done.fetch_add(1, Ordering::SeqCst);
    (token.place, until)
}

/// I4, sampled throughout: two instances tick, people join and leave, and Redis forgets everything again and again.
#[tokio::test(flavor = "multi_thread")]
async fn never_too_many_nor_too_fast_whenever_redis_forgets() {
    const USERS: usize = 240;
    const LOSSES: u64 = 4;
    const MAX_ACTIVE: u32 = 7;
    let rate = PerInterval { count: 40, seconds: 1 };
    let (node, pair) = pair(Admission { per_interval: Some(rate), ..at_most(MAX_ACTIVE) }).await;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut background = JoinSet::new();
    for room in pair.rooms.clone() {
        let (pair, stop) = (Arc::clone(&pair), Arc::clone(&stop));
        background.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                // Unavailable for a moment is what a loss looks like.
                let _ = room.tick(pair.concert, PLENTY).await;
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let mut visitors = JoinSet::new();
    for at in 0..USERS {
        let (pair, done) = (Arc::clone(&pair), Arc::clone(&done));
        visitors.spawn(async move { visit(&pair, at, &done).await });
    }
    let (mut losses, mut full, deadline) = (0, false, Instant::now() + LONG);
    while done.load(Ordering::SeqCst) < USERS as u64 {
        assert!(Instant::now() < deadline, "{} of {USERS} have been let in", done.load(Ordering::SeqCst));
        if let Ok(counts) = pair.rooms[losses as usize % 2].counts(pair.concert).await {
            assert!(counts.active <= u64::from(MAX_ACTIVE), "{} are active", counts.active);
            full |= counts.active == u64::from(MAX_ACTIVE);
        }
        if losses < LOSSES && done.load(Ordering::SeqCst) >= (losses + 1) * USERS as u64 / (LOSSES + 1) {
            node.flush().expect("flushed");
            losses += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let visits = visitors.join_all().await;
    assert!(full && losses == LOSSES, "the limit was reached, and Redis forgot");
    assert_eq!(visits.iter().map(|(place, _)| *place).collect::<HashSet<_>>().len(), USERS, "distinct places");
    // All turns are equally long, so their ends are as far apart as the promotions were.
    let mut ends: Vec<_> = visits.into_iter().map(|(_, until)| until).collect();
    ends.sort_unstable();
    for group in ends.windows(rate.count as usize + 1) {
        let span = group[group.len() - 1] - group[0];
        assert!(span >= TimeDelta::seconds(i64::from(rate.seconds)), "{} promotions within {span}", group.len());
    }
}

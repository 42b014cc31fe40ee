//! What every store must do for a waiting room that keeps its places elsewhere: remember how far it came and whose turn
//! it is, and be the truth about what an operator set.

use std::sync::Arc;

use boxoffice_domain::draw::{draw_key, entries_hash};
use boxoffice_domain::{Admission, AdmissionMode, ConcertId, PerInterval};
use chrono::TimeDelta;
use tokio::task::JoinSet;

use super::build::{admission, fresh, user};
use super::fixture::Fixture;
use super::shop::Shop;
use crate::{ActivePlace, DrawRecord, RoomMark, RoomMirror};

/// One test for each case: `mirror_contract!(make_fixture)`, where `async fn make_fixture() -> Fixture`.
#[macro_export]
macro_rules! mirror_contract {
    ($make:path) => {
        $crate::contract_cases!($make; mirror {
            mirror_of_a_room_that_was_not_saved_is_none
            mirror_gives_back_what_was_saved
            marks_only_grow
            turns_begin_get_longer_and_end
            mirrors_are_each_concerts_own
            saves_at_once_lose_nothing
            admission_that_an_operator_set_is_told_with_a_growing_version
            admission_is_set_only_if_it_is_still_what_was_read
            one_of_many_who_set_an_admission_at_once_succeeds
            draw_is_kept_once_and_for_ever
            one_of_many_who_keep_a_draw_at_once_does
            draw_of_very_many_comes_back_whole
        });
    };
}

fn mark(last_place: u64, promoted_to: u64, served: u64, expired: u64, left: u64) -> RoomMark {
    RoomMark { last_place, promoted_to, served, expired, left }
}

async fn turn(shop: &Shop, place: u64) -> ActivePlace {
    let promoted_at = shop.now().await;
    let active_until = promoted_at + TimeDelta::seconds(600);
    ActivePlace { entry: fresh(), user: user(), place, promoted_at, active_until }
}

/// What is there, by place.
async fn load(mirror: &Arc<dyn RoomMirror>, concert: ConcertId) -> Option<(RoomMark, Vec<ActivePlace>)> {
    let (mark, mut active) = mirror.load(concert).await.expect("a mirror")?;
    active.sort_unstable_by_key(|place| place.place);
    Some((mark, active))
}

async fn save(mirror: &Arc<dyn RoomMirror>, concert: ConcertId, mark: RoomMark, began: &[ActivePlace], ended: &[ActivePlace]) {
    let ended = ended.iter().map(|place| place.entry).collect();
    mirror.save(concert, mark, began.to_vec(), ended).await.expect("saved");
}

pub async fn mirror_of_a_room_that_was_not_saved_is_none(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    assert_eq!(load(mirror, shop.concert).await, None);
    assert_eq!(mirror.admission(shop.concert).await.expect("an answer"), None);
    assert_eq!(mirror.admission(fresh()).await.expect("an answer"), None);
}

pub async fn mirror_gives_back_what_was_saved(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    save(mirror, shop.concert, RoomMark::default(), &[], &[]).await;
    assert_eq!(load(mirror, shop.concert).await, Some((RoomMark::default(), Vec::new())), "a room without entries so far");
    let active = [turn(&shop, 1).await, turn(&shop, 2).await, turn(&shop, 5).await];
    save(mirror, shop.concert, mark(9, 5, 1, 2, 3), &active, &[]).await;
    assert_eq!(load(mirror, shop.concert).await, Some((mark(9, 5, 1, 2, 3), active.to_vec())));
    save(mirror, shop.concert, mark(9, 5, 1, 2, 3), &active, &[]).await;
    assert_eq!(load(mirror, shop.concert).await, Some((mark(9, 5, 1, 2, 3), active.to_vec())), "saving again is harmless");
}

pub async fn marks_only_grow(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    // In each a number of its own is the highest.
    for at in 0..5 {
        let high = |nth| if nth == at { 100 } else { 10 };
        save(mirror, shop.concert, mark(high(0), high(1).min(high(0)), high(2), high(3), high(4)), &[], &[]).await;
    }
    assert_eq!(load(mirror, shop.concert).await.map(|(mark, _)| mark), Some(mark(100, 10, 100, 100, 100)));
    save(mirror, shop.concert, mark(200, 150, 0, 0, 0), &[], &[]).await;
    save(mirror, shop.concert, mark(150, 140, 0, 0, 0), &[], &[]).await;
    assert_eq!(load(mirror, shop.concert).await.map(|(mark, _)| mark), Some(mark(200, 150, 100, 100, 100)));
}

pub async fn turns_begin_get_longer_and_end(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    let (ann, ben, cyd) = (turn(&shop, 1).await, turn(&shop, 2).await, turn(&shop, 3).await);
    save(mirror, shop.concert, mark(3, 2, 0, 0, 0), &[ann, ben], &[]).await;
    let longer = ActivePlace { active_until: ann.active_until + TimeDelta::seconds(60), ..ann };
    save(mirror, shop.concert, mark(3, 3, 0, 0, 1), &[longer, cyd], &[ben]).await;
    assert_eq!(load(mirror, shop.concert).await, Some((mark(3, 3, 0, 0, 1), vec![longer, cyd])));
    // An end may be saved again; what began and ended between two saves has ended, and so has an unknown entry.
    let dan = turn(&shop, 4).await;
    save(mirror, shop.concert, mark(4, 4, 0, 0, 2), &[dan], &[dan, ben, turn(&shop, 9).await]).await;
    assert_eq!(load(mirror, shop.concert).await, Some((mark(4, 4, 0, 0, 2), vec![longer, cyd])));
    // Of one entry saved twice in a call the last one counts.
    save(mirror, shop.concert, mark(4, 4, 0, 0, 2), &[ann, longer], &[cyd]).await;
    assert_eq!(load(mirror, shop.concert).await, Some((mark(4, 4, 0, 0, 2), vec![longer])));
}

pub async fn mirrors_are_each_concerts_own(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    let other = fresh();
    let (here, there) = (turn(&shop, 1).await, turn(&shop, 1).await);
    save(mirror, shop.concert, mark(1, 1, 0, 0, 0), &[here], &[]).await;
    save(mirror, other, mark(7, 1, 0, 0, 0), &[there], &[here]).await;
    assert_eq!(load(mirror, shop.concert).await, Some((mark(1, 1, 0, 0, 0), vec![here])));
    assert_eq!(load(mirror, other).await, Some((mark(7, 1, 0, 0, 0), vec![there])));
}

/// Many instances that save at the same moment, each its own turns, ended by another one as soon as they began.
pub async fn saves_at_once_lose_nothing(fixture: Fixture) {
    const INSTANCES: u64 = 20;
    let shop = Shop::open(fixture).await;
    let mut tasks = JoinSet::new();
    for at in 1..=INSTANCES {
        let shop = Arc::clone(&shop);
        tasks.spawn(async move {
            let mirror = &shop.fixture.stores.mirror;
            let (stays, goes) = (turn(&shop, 2 * at).await, turn(&shop, 2 * at + 1).await);
            save(mirror, shop.concert, mark(100 * at, at, at, 0, 0), &[goes, stays], &[]).await;
            save(mirror, shop.concert, mark(0, 0, 0, at, at), &[], &[goes]).await;
            stays
        });
    }
    let mut expected = tasks.join_all().await;
    expected.sort_unstable_by_key(|place| place.place);
    let marked = mark(100 * INSTANCES, INSTANCES, INSTANCES, INSTANCES, INSTANCES);
    assert_eq!(load(&shop.fixture.stores.mirror, shop.concert).await, Some((marked, expected)));
}

pub async fn admission_that_an_operator_set_is_told_with_a_growing_version(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let stores = &shop.fixture.stores;
    let paused = Admission {
        mode: AdmissionMode::Paused,
        max_active: 9,
        per_interval: Some(PerInterval { count: 3, seconds: 7 }),
        auto: false,
        adaptive: false,
    };
    // Before the first is set the room may have been opened with any.
    let first = stores.mirror.set_admission(shop.concert, paused, paused).await.expect("an answer").expect("set");
    assert_eq!(first.admission, paused);
    assert_eq!(stores.mirror.admission(shop.concert).await.expect("an answer"), Some(first));
    assert_eq!(stores.queries.catalog().await.expect("a catalogue")[0].admission, paused, "the catalogue shows it");
    let mut last = first;
    let adapting = Admission { auto: true, adaptive: true, ..admission() };
    for to in [admission(), paused, paused, adapting, Admission { auto: false, ..adapting }, Admission { adaptive: false, ..adapting }] {
        let set = stores.mirror.set_admission(shop.concert, last.admission, to).await.expect("an answer").expect("set");
        assert_eq!(set.admission, to);
        assert!(set.version > last.version, "{set:?} after {last:?}");
        assert_eq!(stores.mirror.admission(shop.concert).await.expect("an answer"), Some(set));
        assert_eq!(stores.queries.catalog().await.expect("a catalogue")[0].admission, to);
        last = set;
    }
}

pub async fn admission_is_set_only_if_it_is_still_what_was_read(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    let rate = |count, seconds| Some(PerInterval { count, seconds });
    let was = Admission { per_interval: rate(3, 7), ..admission() };
    let own = mirror.set_admission(shop.concert, admission(), was).await.expect("an answer");
    assert!(own.is_some());
    for stale in [
        Admission { mode: AdmissionMode::Draining, ..was },
        Admission { max_active: was.max_active + 1, ..was },
        Admission { per_interval: rate(4, 7), ..was },
        Admission { per_interval: rate(3, 8), ..was },
        Admission { per_interval: None, ..was },
        Admission { auto: true, ..was },
        Admission { adaptive: true, ..was },
    ] {
        assert_eq!(mirror.set_admission(shop.concert, stale, admission()).await.expect("an answer"), None, "{stale:?}");
    }
    assert_eq!(mirror.admission(shop.concert).await.expect("an answer"), own);
    assert_eq!(mirror.set_admission(fresh(), was, admission()).await.expect("an answer"), None, "there is no such concert");
}

pub async fn one_of_many_who_set_an_admission_at_once_succeeds(fixture: Fixture) {
    const OPERATORS: u32 = 20;
    let shop = Shop::open(fixture).await;
    let was = admission();
    assert!(shop.fixture.stores.mirror.set_admission(shop.concert, was, was).await.expect("an answer").is_some());
    let mut tasks = JoinSet::new();
    for at in 0..OPERATORS {
        let shop = Arc::clone(&shop);
        let to = Admission { max_active: was.max_active + 1 + at, ..was };
        tasks.spawn(async move { shop.fixture.stores.mirror.set_admission(shop.concert, was, to).await.expect("an answer") });
    }
    let set: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(set.len(), 1, "{set:?}");
    assert_eq!(shop.fixture.stores.mirror.admission(shop.concert).await.expect("an answer"), Some(set[0]));
}

/// With so many keys, and a seed that identifies it.
async fn drawn(shop: &Shop, count: usize, which: u8) -> DrawRecord {
    let mut keys: Vec<_> = (0..count).map(|_| draw_key(user(), shop.concert)).collect();
    keys.sort_unstable();
    DrawRecord {
        closed_at: shop.now().await,
        base: u64::from(which),
        keys,
        seed: [which; 32],
        beacon: which.is_multiple_of(2).then(|| format!("beacon {which}")),
    }
}

pub async fn draw_is_kept_once_and_for_ever(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    let other = fresh();
    assert_eq!(mirror.draw(shop.concert).await.expect("an answer"), None);
    let (first, second, empty) = (drawn(&shop, 3, 2).await, drawn(&shop, 5, 3).await, drawn(&shop, 0, 1).await);
    assert!(mirror.keep_draw(shop.concert, first.clone()).await.expect("an answer"));
    assert_eq!(mirror.draw(other).await.expect("an answer"), None, "of each concert its own");
    for again in [&second, &first, &empty] {
        assert!(!mirror.keep_draw(shop.concert, again.clone()).await.expect("an answer"));
    }
    assert_eq!(mirror.draw(shop.concert).await.expect("an answer"), Some(first));
    assert!(mirror.keep_draw(other, empty.clone()).await.expect("an answer"));
    assert_eq!(mirror.draw(other).await.expect("an answer"), Some(empty), "without participants and without a beacon");
}

pub async fn one_of_many_who_keep_a_draw_at_once_does(fixture: Fixture) {
    const INSTANCES: u8 = 20;
    let shop = Shop::open(fixture).await;
    let mut tasks = JoinSet::new();
    for at in 0..INSTANCES {
        let shop = Arc::clone(&shop);
        tasks.spawn(async move {
            let draw = drawn(&shop, 100, at).await;
            shop.fixture.stores.mirror.keep_draw(shop.concert, draw.clone()).await.expect("an answer").then_some(draw)
        });
    }
    let mut kept: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(shop.fixture.stores.mirror.draw(shop.concert).await.expect("an answer"), kept.pop());
}

pub async fn draw_of_very_many_comes_back_whole(fixture: Fixture) {
    const KEYS: usize = 200_000;
    let shop = Shop::open(fixture).await;
    let mirror = &shop.fixture.stores.mirror;
    let draw = drawn(&shop, KEYS, 4).await;
    let hash = entries_hash(&draw.keys);
    assert!(mirror.keep_draw(shop.concert, draw).await.expect("an answer"));
    let back = mirror.draw(shop.concert).await.expect("an answer").expect("a draw");
    assert_eq!((back.keys.len(), entries_hash(&back.keys)), (KEYS, hash));
}

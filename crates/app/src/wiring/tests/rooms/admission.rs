//! An operator's change is in the mirror before it is in the room's log: after a failure in between, the room follows.

use super::faulty::{Fault, Faulty};
use super::*;
use boxoffice_domain::{Admission, ConcertId};
use boxoffice_ports::contract::build::{admission, demo_plan};
use boxoffice_ports::{Opening, RoomError, WaitingRoom};

fn at_most(max_active: u32) -> Admission {
    Admission { max_active, ..admission() }
}

/// As the server does it: read, merge, replace, and retry after a concurrent change.
async fn patch(room: &Rooms, concert: ConcertId, max_active: u32) -> Result<(), RoomError> {
    for _ in 0..3 {
        let was = room.admission(concert).await?;
        if room.set_admission(concert, was, Admission { max_active, ..was }).await? {
            return Ok(());
        }
    }
    panic!("the admission kept changing concurrently");
}

struct World {
    stores: Stores,
    store: Arc<MemoryStore>,
    clock: Arc<SystemClock>,
    log: Arc<Faulty>,
    room: Arc<Rooms>,
    opening: Opening,
}

async fn opened(is_volatile: bool) -> World {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let (stores, log) = (store.stores(), Faulty::new(store.room_log(), is_volatile));
    let room = instance(log.clone(), &stores, clock.clone());
    let concert = stores.catalog.import(vec![demo_plan(clock.now())], at_most(5)).await.unwrap()[0].id;
    let opening = Opening { concert, sale_starts_at: None, admission: at_most(5) };
    room.open(opening).await.unwrap();
    assert!(room.is_open(&opening));
    World { stores, store, clock, log, room, opening }
}

/// The opening as the catalogue has it after an operator's change.
async fn catalogued(setting: &World) -> Opening {
    let rows = setting.stores.queries.catalog().await.unwrap();
    Opening { admission: rows[0].admission, ..setting.opening }
}

#[tokio::test]
async fn a_log_that_fails_between_mirror_and_append_ends_in_what_the_operator_asked_for() {
    for fault in [Fault::Before, Fault::After] {
        for is_volatile in [true, false] {
            let setting = opened(is_volatile).await;
            let (room, concert) = (&setting.room, setting.opening.concert);
            setting.log.fail(Some(fault));
            let refused = patch(room, concert, 9).await;
            assert!(matches!(refused, Err(RoomError::Unavailable(_))), "{refused:?}");
            setting.log.fail(Some(Fault::Before));
            let was = at_most(5);
            assert!(room.set_admission(concert, was, at_most(9)).await.is_err(), "mirrored and not appended");
            let opening = catalogued(&setting).await;
            assert_eq!(opening.admission, at_most(9), "the mirror has it");
            assert!(!room.is_open(&opening));
            // A refresh that fails, and one that does not.
            assert!(room.open(opening).await.is_err());
            assert!(!room.is_open(&opening), "a failed refresh does not count as done");
            setting.log.fail(None);
            room.open(opening).await.unwrap();
            assert_eq!(room.admission(concert).await.unwrap(), at_most(9), "{fault:?}, volatile {is_volatile}");
            assert!(room.is_open(&opening));
            patch(room, concert, 11).await.unwrap();
            assert_eq!(room.admission(concert).await.unwrap(), at_most(11));
        }
    }
}

#[tokio::test]
async fn a_change_that_is_retried_before_any_refresh_is_applied() {
    let setting = opened(true).await;
    let (room, concert) = (&setting.room, setting.opening.concert);
    // It is in the mirror, and its instance died before the append.
    assert!(setting.stores.mirror.set_admission(concert, at_most(5), at_most(9)).await.unwrap().is_some());
    patch(room, concert, 11).await.unwrap();
    assert_eq!(room.admission(concert).await.unwrap(), at_most(11));
}

#[tokio::test]
async fn a_change_whose_instance_died_before_the_append_is_found_by_another() {
    let setting = opened(true).await;
    let concert = setting.opening.concert;
    let other = instance(setting.store.room_log(), &setting.stores, setting.clock.clone());
    other.open(setting.opening).await.unwrap();
    assert!(setting.stores.mirror.set_admission(concert, at_most(5), at_most(9)).await.unwrap().is_some());
    let opening = catalogued(&setting).await;
    other.open(opening).await.unwrap();
    for room in [&other, &setting.room] {
        assert_eq!(room.admission(concert).await.unwrap(), at_most(9));
    }
}

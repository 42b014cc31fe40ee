//! Admission: an operator changes it, and it stays.

use boxoffice_domain::{Admission, AdmissionMode, PerInterval, QueueStatus};

use super::super::build::{admission, fresh, user};
use super::case::{PLENTY, RoomCase, RoomFixture, at_most};
use crate::{Opening, RoomError};

pub async fn pausing_draining_and_resuming(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, admission()).await;
    let ann = case.join(user()).await;
    case.set(Admission { mode: AdmissionMode::Paused, ..admission() }).await;
    assert_eq!(case.tick(PLENTY).await.promoted, 0);
    let ben = case.join(user()).await;
    assert_eq!((ben.status, ben.arrival), (QueueStatus::Waiting, 2), "joining goes on");

    case.set(Admission { mode: AdmissionMode::Draining, ..at_most(1) }).await;
    assert!(matches!(case.room.join(case.concert, user(), None, fresh()).await, Err(RoomError::Closed)));
    assert_eq!(case.join(ann.user).await.entry, ann.entry, "an entry that joined before is found");
    assert_eq!(case.tick(PLENTY).await.promoted, 1, "waiting entries are still admitted");
    assert_eq!(case.status(ann.entry).await, QueueStatus::Active);

    case.set(Admission { mode: AdmissionMode::Running, ..admission() }).await;
    assert_eq!(case.join(user()).await.arrival, 3);
    assert_eq!(case.tick(PLENTY).await.promoted, 2);
}

pub async fn admission_is_kept_when_the_room_is_opened_again(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(5)).await;
    assert_eq!(case.room.admission(case.concert).await.expect("an admission"), at_most(5));
    let changed = Admission {
        mode: AdmissionMode::Paused,
        max_active: 9,
        per_interval: Some(PerInterval { count: 3, seconds: 7 }),
        auto: false,
        adaptive: false,
    };
    case.set(changed).await;
    let place = case.join(user()).await;
    let terms = Opening { concert: case.concert, sale_starts_at: None, admission: at_most(5) };
    case.room.open(terms).await.expect("opening again is harmless");
    assert_eq!(case.room.admission(case.concert).await.expect("an admission"), changed);
    assert_eq!(case.place(place.entry).await.arrival, 1);
    assert_eq!(case.tick(PLENTY).await.promoted, 0);
}

pub async fn admission_is_replaced_only_if_it_is_still_what_was_read(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(5)).await;
    let (one, other) = (at_most(6), at_most(7));
    assert!(case.room.set_admission(case.concert, at_most(5), one).await.expect("set"));
    assert!(!case.room.set_admission(case.concert, at_most(5), other).await.expect("an answer"), "it is another by now");
    assert_eq!(case.room.admission(case.concert).await.expect("an admission"), one);
    assert!(case.room.set_admission(case.concert, one, other).await.expect("set"));
    assert_eq!(case.room.admission(case.concert).await.expect("an admission"), other);
}

//! Random days: the room in Redis, used by two instances, and the domain's room say the same at every step.

use std::sync::{Arc, Mutex};

use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::memory::MemoryStore;
use boxoffice_domain::{Admission, AdmissionMode, PerInterval, Place, QueueEntryId, QueueStatus, Room, Stock, Timestamp, UserId};
use boxoffice_ports::contract::build::{admission, fresh, user};
use boxoffice_ports::{Clock, RoomError, RoomTerms, WaitingRoom};
use chrono::{DateTime, TimeDelta};

use super::{instance, shared};

/// Time goes in steps of seven seconds. No limit here is a multiple of that, or within two seconds of one, so the
/// instant at which a call arrives makes no difference.
const STEP_S: i64 = 7;
const TURN_S: u32 = 600;
const DAYS: u64 = 12;
const STEPS: u32 = 150;

/// A clock whose offset brings the node to where it was put.
pub(super) struct PinnedClock(Mutex<Timestamp>);

impl PinnedClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(DateTime::UNIX_EPOCH + TimeDelta::days(20_000))))
    }

    pub(super) fn advance(&self, by: TimeDelta) {
        *self.0.lock().expect("a clock") += by;
    }
}

impl Clock for PinnedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("a clock")
    }

    fn offset(&self) -> TimeDelta {
        self.now() - SystemClock::default().now()
    }
}

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_days_are_as_in_the_domain() {
    for seed in 1..=DAYS {
        Box::pin(one_day(seed)).await;
    }
}

/// The node's time is some milliseconds later.
fn seen(mut place: Place) -> Place {
    place.active_until = place.active_until.and_then(|until| DateTime::from_timestamp(until.timestamp(), 0));
    place
}

async fn one_day(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let clock = PinnedClock::new();
    let start = clock.now();
    let store = MemoryStore::new(Arc::new(SystemClock::default()));
    let rate = |dice: &mut Dice| match dice.roll(3) {
        0 => None,
        at => Some(PerInterval { count: 1 + dice.roll(3) as u32, seconds: [10, 24][at as usize - 1] }),
    };
    let mut terms = Admission { max_active: 1 + dice.roll(5) as u32, per_interval: rate(&mut dice), ..admission() };
    let sale = (dice.roll(2) == 0).then(|| start + TimeDelta::seconds(31));
    let plan = boxoffice_ports::contract::build::demo_plan(start);
    let concert = store.stores().catalog.import(vec![plan], terms).await.expect("an import")[0].id;
    let rooms: [Arc<dyn WaitingRoom>; 2] = std::array::from_fn(|_| instance(&shared(), store.clone(), clock.clone()));
    for room in &rooms {
        room.open(RoomTerms { concert, sale_starts_at: sale, admission: terms }).await.expect("a room");
    }
    let mut model = Room::new(terms, sale, TURN_S);
    let people: Vec<UserId> = (0..14).map(|_| user()).collect();
    let mut entries: Vec<QueueEntryId> = Vec::new();
    for step in 0..STEPS {
        let at = format!("seed {seed}, step {step}");
        let (room, now) = (&rooms[dice.roll(2) as usize], clock.now());
        let person = people[dice.roll(people.len() as u64) as usize];
        match dice.roll(20) {
            0..7 => {
                let entry: QueueEntryId = fresh();
                let expected = model.join(person, entry, now, &mut Vec::new());
                match room.join(concert, person, entry).await {
                    Ok(entered) => {
                        let expected = expected.map(|expected| (expected.new, seen(expected.place)));
                        assert_eq!(Some((entered.new, seen(entered.place))), expected, "{at}");
                    }
                    Err(RoomError::Closed) => assert_eq!(expected, None, "{at}"),
                    Err(error) => panic!("{at}: {error}"),
                }
                entries.push(entry);
            }
            7..9 => {
                if let Some(entry) = model.entry_of(person) {
                    model.leave(entry, now, &mut Vec::new());
                    room.leave(concert, entry).await.expect("left");
                }
            }
            9..11 => {
                // Three seconds aside, so that it is clear whether the turn had begun.
                let paid_at = now + TimeDelta::seconds(3) - TimeDelta::seconds(STEP_S * dice.roll(2) as i64);
                model.finish(person, paid_at, now, &mut Vec::new());
                room.finish(concert, person, paid_at).await.expect("finished");
            }
            11..16 => {
                let stock = Stock { obtainable: [0, 2, 4, 100][dice.roll(4) as usize], linked: dice.roll(2) == 0 };
                let mut changes = Vec::new();
                model.tick(now, stock, &mut changes);
                let ticked = room.tick(concert, stock).await.expect("a tick");
                let count = |status| changes.iter().filter(|change| change.status == status).count() as u64;
                let expected = (count(QueueStatus::Active), count(QueueStatus::Expired));
                assert_eq!((ticked.promoted, ticked.expired), expected, "{at}");
            }
            16 => {
                let mode = [AdmissionMode::Running, AdmissionMode::Running, AdmissionMode::Paused, AdmissionMode::Draining];
                let to = Admission {
                    mode: mode[dice.roll(4) as usize],
                    max_active: 1 + dice.roll(5) as u32,
                    per_interval: rate(&mut dice),
                    auto: false,
                    adaptive: false,
                };
                assert!(room.set_admission(concert, terms, to).await.expect("an answer"), "{at}");
                terms = to;
                model.set_admission(to);
            }
            long => {
                let steps = if long == 17 { 1 + dice.roll(30) as i64 } else { 1 + dice.roll(3) as i64 };
                clock.advance(TimeDelta::seconds(STEP_S * steps));
            }
        }
        let now = clock.now();
        let (there, here) = (rooms[0].counts(concert).await.expect("counts"), model.counts(now));
        assert_eq!(there, here, "{at}");
        for entry in &entries {
            let there = rooms[1].place(concert, *entry).await.expect("a room").map(seen);
            let here = model.place(*entry, now).map(seen);
            assert_eq!(there, here, "{at}");
        }
    }
}

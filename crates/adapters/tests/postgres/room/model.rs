//! Random operations on two instances and on the domain's own room: the same answers, places and counts after each.
//!
//! The database's clock runs meanwhile. So time is moved by whole minutes, and everything that is judged by time lies
//! whole minutes apart: what runs by itself in between decides nothing.

use super::super::contract::ACTIVE_TTL_S;
use super::super::support::Place;
use super::Twins;
use boxoffice_domain::{
    Admission, AdmissionMode, PerInterval, Place as QueuePlace, QueueEntryId, QueueStatus, Room, Stock, Timestamp, UserId,
};
use boxoffice_ports::contract::build::{admission, fresh, user};
use boxoffice_ports::{RoomError, RoomTerms};
use chrono::TimeDelta;
use futures_util::future::join_all;

const SEEDS: u64 = 6;
const STEPS: u32 = 140;
const PEOPLE: usize = 12;

/// SplitMix64: the same steps for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct Beside {
    twins: Twins,
    room: Room,
    people: Vec<UserId>,
    entries: Vec<QueueEntryId>,
    admission: Admission,
}

impl Beside {
    async fn now(&self) -> Timestamp {
        self.twins.stores.queries.now().await.expect("now")
    }

    async fn step(&mut self, random: &mut Random) -> String {
        let (instance, now) = (self.twins.rooms[random.below(2) as usize].clone(), self.now().await);
        let concert = self.twins.concert;
        let ann = self.people[random.below(PEOPLE as u64) as usize];
        match random.below(20) {
            0..=7 => {
                let entry = fresh();
                let expected = self.room.join(ann, entry, now, &mut Vec::new());
                let got = match instance.join(concert, ann, entry).await {
                    Ok(entered) => Some(entered),
                    Err(RoomError::Closed) => None,
                    Err(error) => panic!("{error}"),
                };
                let told = |entered: &boxoffice_domain::Entered| (entered.new, comparable(&entered.place));
                assert_eq!(got.as_ref().map(told), expected.as_ref().map(told));
                self.entries.extend(got.filter(|entered| entered.new).map(|entered| entered.place.entry));
                "a join".to_owned()
            }
            8 | 9 if !self.entries.is_empty() => {
                let entry = self.entries[random.below(self.entries.len() as u64) as usize];
                self.room.leave(entry, now, &mut Vec::new());
                instance.leave(concert, entry).await.expect("left");
                "leaving".to_owned()
            }
            10 | 11 => {
                let paid_at = if random.below(3) == 0 { now - TimeDelta::seconds(30) } else { now + TimeDelta::seconds(30) };
                self.room.finish(ann, paid_at, now, &mut Vec::new());
                instance.finish(concert, ann, paid_at).await.expect("finished");
                "a payment".to_owned()
            }
            12..=15 => {
                let obtainable = [0, 1, 2, 3, 100][random.below(5) as usize];
                let stock = Stock { obtainable, linked: random.below(2) == 0 };
                let mut changes = Vec::new();
                self.room.tick(now, stock, &mut changes);
                let ticked = instance.tick(concert, stock).await.expect("a tick");
                let count = |status| changes.iter().filter(|change| change.status == status).count() as u64;
                assert_eq!((ticked.promoted, ticked.expired), (count(QueueStatus::Active), count(QueueStatus::Expired)));
                format!("a tick with {stock:?}")
            }
            16 | 17 => {
                let minutes = [1, 1, 2, 5, 10, 24 * 60][random.below(6) as usize];
                self.twins.place.clock.advance(TimeDelta::minutes(minutes));
                format!("{minutes} minutes")
            }
            18 => {
                let mode = [AdmissionMode::Running, AdmissionMode::Running, AdmissionMode::Paused, AdmissionMode::Draining]
                    [random.below(4) as usize];
                let rate = PerInterval { count: 1 + random.below(3) as u32, seconds: 60 * (1 + random.below(3) as u32) };
                let per_interval = (random.below(2) == 0).then_some(rate);
                let to = Admission { mode, max_active: 1 + random.below(4) as u32, per_interval, auto: false, adaptive: false };
                self.room.set_admission(to);
                assert!(instance.set_admission(concert, self.admission, to).await.expect("an answer"));
                self.admission = to;
                format!("{to:?}")
            }
            _ => {
                let sale = [None, Some(now - TimeDelta::seconds(30)), Some(now + TimeDelta::seconds(90))][random.below(3) as usize];
                self.room.set_sale_starts_at(sale);
                instance.open(RoomTerms { concert, sale_starts_at: sale, admission: admission() }).await.expect("open");
                format!("a sale from {sale:?}")
            }
        }
    }

    async fn compare(&self, after: &str) {
        for instance in &self.twins.rooms {
            let now = self.now().await;
            let places = join_all(self.entries.iter().map(|entry| instance.place(self.twins.concert, *entry))).await;
            for (entry, place) in self.entries.iter().zip(places) {
                let (got, expected) = (place.expect("a room"), self.room.place(*entry, now));
                assert_eq!(got.as_ref().map(comparable), expected.as_ref().map(comparable), "after {after}");
            }
            let counts = instance.counts(self.twins.concert).await.expect("counts");
            assert_eq!(counts, self.room.counts(now), "after {after}");
        }
    }
}

/// All of a place but for the fractions of a second in its turn's end.
fn comparable(place: &QueuePlace) -> (QueueEntryId, UserId, QueueStatus, u64, Option<u64>, bool, Option<boxoffice_domain::Eta>) {
    (place.entry, place.user, place.status, place.arrival, place.ahead, place.active_until.is_some(), place.eta)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_do_what_the_domains_room_does() {
    for seed in 0..SEEDS {
        let first = Admission { max_active: 2, ..admission() };
        let twins = Twins::open(Place::new(), first).await;
        let room = Room::new(first, None, ACTIVE_TTL_S);
        let people = (0..PEOPLE).map(|_| user()).collect();
        let mut beside = Beside { twins, room, people, entries: Vec::new(), admission: first };
        let mut random = Random(seed);
        for step in 0..STEPS {
            let done = beside.step(&mut random).await;
            beside.compare(&format!("{done}, step {step} of seed {seed}")).await;
        }
    }
}

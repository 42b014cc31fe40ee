//! Long random runs of a room and of clients that know nothing but their frames: after each of them, what a client
//! makes of its frames is what polling says.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use boxoffice_domain::waiting::{LaneTerms, Place, PlaceClaim, QueueStatus, Room, RoomInput, RoomTerms};
use boxoffice_domain::{Admission, AdmissionMode, QueueEntryId, Stock, Timestamp, UserId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::channel::{Channel, Look};
use super::listener::{End, Listener, Next};
use super::*;
use crate::testing::{CONCERT, at, id};

struct PlainFrames;

impl OwnFrames for PlainFrames {
    fn queue(&self, _: ConcertId, place: &Place, seq: u64, admitted: u64, _: Timestamp) -> String {
        let ahead = place.ahead.map_or("null".to_owned(), |ahead| ahead.to_string());
        let (status, place) = (place.status, place.arrival);
        format!(r#"{{"type":"queue","seq":{seq},"admitted":{admitted},"status":"{status:?}","place":{place},"ahead":{ahead}}}"#)
    }
}

/// What a client makes of its frames: the formula, and nothing else.
#[derive(Debug, Default)]
struct Client {
    seq: u64,
    place: u64,
    ahead: Option<u64>,
    admitted: u64,
    status: String,
    /// The last mode told; empty for running.
    mode: String,
    own_frames: u32,
    frames: u32,
    ended: Option<End>,
}

fn number(json: &str, key: &str) -> Option<u64> {
    let from = json.find(&format!("\"{key}\":"))? + key.len() + 3;
    let digits: String = json[from..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn text<'a>(json: &'a str, key: &str) -> &'a str {
    let from = json.find(&format!("\"{key}\":\"")).unwrap() + key.len() + 4;
    json[from..].split('"').next().unwrap()
}

impl Client {
    fn hears(&mut self, frame: &[u8]) {
        let frame = std::str::from_utf8(frame).unwrap();
        let json = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let (event, seq) = (text(json, "type"), number(json, "seq").unwrap());
        assert!(frame.starts_with(&format!("event: {event}\nid: {seq}\n")), "{frame}");
        if event != "queue" {
            assert_eq!(seq, self.seq + 1, "a gap before {json} of {self:?}");
        }
        self.seq = seq;
        self.frames += 1;
        match event {
            "queue" => {
                self.own_frames += 1;
                (self.place, self.ahead) = (number(json, "place").unwrap(), number(json, "ahead"));
                self.admitted = number(json, "admitted").unwrap();
                text(json, "status").clone_into(&mut self.status);
            }
            "position" => {
                let admitted = number(json, "admitted").unwrap();
                let left = json.split("\"left\":[").nth(1).unwrap().split(']').next().unwrap();
                let left = left.split(',').filter_map(|place| place.parse::<u64>().ok()).filter(|place| *place < self.place).count();
                let gone = admitted - self.admitted + left as u64;
                let ahead = self.ahead.unwrap();
                assert!(gone <= ahead, "{gone} of {ahead}: {json} to {self:?}");
                (self.ahead, self.admitted) = (Some(ahead - gone), admitted);
            }
            "active" => (self.status, self.ahead) = ("Active".to_owned(), Some(0)),
            "expired" => (self.status, self.ahead) = ("Expired".to_owned(), None),
            "sold_out" => self.status = if self.status == "Waiting" { "SoldOut".to_owned() } else { self.status.clone() },
            "available" => self.status = if self.status == "SoldOut" { "Waiting".to_owned() } else { self.status.clone() },
            "running" => self.mode.clear(),
            mode => mode.clone_into(&mut self.mode),
        }
    }
}

/// What a listener need not wait for.
fn waiting(listener: &Listener) -> Option<Next> {
    match pin!(listener.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(next) => Some(next),
        Poll::Pending => None,
    }
}

const PACE: Pace = Pace { near: Duration::from_secs(1), far: Duration::from_secs(5), spread: Duration::from_millis(1_500), nearest: 20 };

struct World {
    room: Room,
    generation: u64,
    now: Timestamp,
    instant: Instant,
    channel: Channel,
    stats: Stats,
    clients: HashMap<u64, (Arc<Listener>, Client)>,
    next: u64,
}

impl World {
    fn new(terms: RoomTerms) -> Self {
        let room = Room::new(id(CONCERT), terms);
        let channel = Channel::new(id(CONCERT), PACE);
        let (now, instant) = (at(0), Instant::now());
        Self { room, generation: 1, now, instant, channel, stats: Stats::default(), clients: HashMap::new(), next: 1 }
    }

    fn told(&mut self, input: &RoomInput) {
        let mut changes = Vec::new();
        self.room.apply(self.now, input, &mut changes);
        let teller = Teller { frames: &PlainFrames, stats: &self.stats };
        let look = Look { generation: self.generation, room: &self.room, now: self.now };
        for change in &changes {
            self.channel.changed(change, &teller, look);
        }
    }

    fn join(&mut self, number: u128, lane: boxoffice_domain::Lane) {
        self.told(&RoomInput::Join { user: UserId(uuid::Uuid::from_u128(number)), entry: entry(number), lane });
    }

    fn listens(&mut self, number: u128, resume: Option<u64>) -> u64 {
        let listener = Listener::new(self.next, entry(number), Form::Sse);
        self.next += 1;
        let teller = Teller { frames: &PlainFrames, stats: &self.stats };
        let look = Look { generation: self.generation, room: &self.room, now: self.now };
        if self.channel.join(&listener, resume, &teller, look) {
            self.clients.insert(listener.id(), (listener.clone(), Client::default()));
        }
        listener.id()
    }

    fn hangs_up(&mut self, client: u64) -> Option<Client> {
        let (listener, client) = self.clients.remove(&client)?;
        self.channel.leave(&listener);
        Some(client)
    }

    fn passes(&mut self, ms: i64) {
        self.now += chrono::TimeDelta::milliseconds(ms);
        self.instant += Duration::from_millis(ms.unsigned_abs());
        let teller = Teller { frames: &PlainFrames, stats: &self.stats };
        let look = Look { generation: self.generation, room: &self.room, now: self.now };
        let (due, alone) = self.channel.pulse(&teller, self.instant, look);
        for delivery in &due {
            for listener in &delivery.to {
                assert!(listener.push(delivery.frame.of(listener.form())));
            }
        }
        for id in alone {
            self.channel.tell_own(id, &teller, look);
        }
    }

    fn reads(&mut self) {
        for (listener, client) in self.clients.values_mut() {
            while client.ended.is_none()
                && let Some(next) = waiting(listener)
            {
                match next {
                    Next::Frame(frame) => client.hears(&frame),
                    Next::End(end) => client.ended = Some(end),
                }
            }
        }
    }

    /// Everybody gets what is due, and then knows what polling says.
    fn agrees(&mut self) {
        for _ in 0..24 {
            self.passes(250);
            self.reads();
        }
        for (listener, client) in self.clients.values().filter(|(_, client)| client.ended.is_none()) {
            let place = self.room.place(listener.entry(), self.now).unwrap();
            assert_eq!(client.status, format!("{:?}", place.status), "{client:?}");
            assert_eq!(client.ahead, place.ahead, "{client:?} at {place:?}");
            if matches!(place.status, QueueStatus::Waiting | QueueStatus::SoldOut) {
                let mode = self.room.admission().mode;
                assert_eq!(client.mode.is_empty(), mode == AdmissionMode::Running, "{client:?} while {mode:?}");
            }
        }
    }
}

fn entry(number: u128) -> QueueEntryId {
    QueueEntryId(uuid::Uuid::from_u128(1_000_000 + number))
}

fn terms(max_active: u32) -> RoomTerms {
    RoomTerms {
        sale_starts_at: None,
        admission: Admission { mode: AdmissionMode::Running, max_active, per_interval: None, auto: false, adaptive: false },
        active_ttl_s: 600,
        extensions_max: 2,
        grace_s: 20,
        waiting_grace_s: 1_800,
        p99_target_ms: 100,
        lanes: vec![LaneTerms { name: "fans".to_owned(), share: 300 }],
        commitment: None,
    }
}

const STOCK: Stock = Stock { obtainable: 10_000, linked: false };
const GENERAL: boxoffice_domain::Lane = boxoffice_domain::Lane(0);

#[test]
fn after_every_frame_a_client_knows_what_polling_says() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new(terms(5));
        world.told(&RoomInput::Tick(STOCK));
        let mut people = 0_u128;
        for step in 0..600 {
            match random.random_range(0..100) {
                0..30 => {
                    people += 1;
                    world.join(people, boxoffice_domain::Lane(u8::from(random.random_bool(0.3))));
                }
                30..50 if people > 0 => {
                    world.listens(random.random_range(1..=people), None);
                }
                50..62 if people > 0 => world.told(&RoomInput::Leave { entry: entry(random.random_range(1..=people)) }),
                62..68 => {
                    if let Some(client) = world.clients.keys().min().copied() {
                        world.hangs_up(client);
                    }
                }
                68..72 => {
                    let obtainable = if random.random_bool(0.5) { 0 } else { STOCK.obtainable };
                    world.told(&RoomInput::Tick(Stock { obtainable, ..STOCK }));
                }
                72..74 if people > 0 => {
                    // Somebody whom a room lost comes back to where they were.
                    let place = random.random_range(1..=world.room.last_place() + 3);
                    people += 1;
                    let user = UserId(uuid::Uuid::from_u128(people));
                    let claim = PlaceClaim { entry: entry(people), user, lane: GENERAL, place, active_until: None };
                    world.told(&RoomInput::Restore(claim));
                }
                75 => {
                    let mode = if random.random_bool(0.7) { AdmissionMode::Running } else { AdmissionMode::Paused };
                    let admission = Admission { mode, ..world.room.admission() };
                    world.told(&RoomInput::Admit { admission, version: step });
                }
                74 => {
                    // Another replica in the place of this one.
                    world.room = Room::from(world.room.state());
                    world.generation += 1;
                }
                _ => {
                    world.told(&RoomInput::Tick(STOCK));
                    world.passes(random.random_range(50..400));
                    world.reads();
                }
            }
            if step % 100 == 99 {
                world.told(&RoomInput::Tick(STOCK));
                world.agrees();
            }
        }
        assert!(world.clients.values().all(|(_, client)| client.ended != Some(End::Slow)), "seed {seed}");
    }
}

#[test]
fn those_who_wait_cost_no_frame_of_their_own() {
    let mut world = World::new(terms(1));
    for number in 1..=50 {
        world.join(number, GENERAL);
        world.listens(number, None);
    }
    for leaver in [3, 30] {
        world.told(&RoomInput::Leave { entry: entry(leaver) });
    }
    world.told(&RoomInput::Tick(STOCK));
    world.agrees();
    // The twenty nearest were so from the beginning; of the others those that came nearer got another one.
    let again = world.clients.values().filter(|(_, client)| client.own_frames > 1).count();
    assert!((1..=4).contains(&again), "{again}");
}

#[test]
fn whoever_comes_nearer_is_told_as_often_as_those_who_were_near() {
    let mut world = World::new(terms(1));
    for number in 1..=30 {
        world.join(number, GENERAL);
    }
    let client = world.listens(30, None);
    let told_in_ten_seconds = |world: &mut World| {
        let before = world.clients[&client].1.frames;
        for _ in 0..40 {
            world.passes(250);
            world.reads();
        }
        world.clients[&client].1.frames - before
    };
    let far = told_in_ten_seconds(&mut world);
    assert!((2..=4).contains(&far), "{far}: every five seconds, and once of its own");
    for leaver in 1..=15 {
        world.told(&RoomInput::Leave { entry: entry(leaver) });
    }
    world.agrees();
    let near = told_in_ten_seconds(&mut world);
    assert!((9..=11).contains(&near), "{near}: every second");
}

#[test]
fn a_promotion_is_told_at_once_and_an_end_ends() {
    let mut world = World::new(terms(1));
    for number in 1..=3 {
        world.join(number, GENERAL);
    }
    let clients: Vec<_> = (1..=3).map(|number| world.listens(number, None)).collect();
    world.told(&RoomInput::Tick(STOCK));
    world.reads();
    assert_eq!(world.clients[&clients[0]].1.status, "Active", "before any pulse");
    world.told(&RoomInput::Leave { entry: entry(2) });
    world.now += chrono::TimeDelta::seconds(601);
    world.told(&RoomInput::Tick(STOCK));
    world.reads();
    let client = |at: usize| &world.clients[&clients[at]].1;
    assert_eq!((client(0).status.as_str(), client(0).ended), ("Expired", Some(End::Over)));
    assert_eq!((client(1).status.as_str(), client(1).ended), ("Left", Some(End::Over)));
    assert_eq!(client(2).status, "Active");
}

#[test]
fn whoever_resumes_gets_what_they_missed_or_begins_anew() {
    let mut world = World::new(terms(1));
    for number in 1..=10 {
        world.join(number, GENERAL);
        world.listens(number, None);
    }
    world.agrees();
    let client = world.hangs_up(9).unwrap();
    world.told(&RoomInput::Tick(STOCK));
    world.told(&RoomInput::Leave { entry: entry(5) });
    world.passes(1_000);
    world.reads();
    let resumed = world.listens(9, Some(client.seq));
    let (own_frames, seq) = (client.own_frames, client.seq);
    world.clients.get_mut(&resumed).unwrap().1 = client;
    world.agrees();
    let client = &world.clients[&resumed].1;
    assert_eq!((client.own_frames, client.ahead), (own_frames, Some(6)), "no frame of their own");
    assert!(client.seq > seq);
    // What is long past, or another stream's, is not known.
    for unknown in [seq - 100, seq + 1_000] {
        let begun = world.listens(9, Some(unknown));
        world.reads();
        assert_eq!(world.clients[&begun].1.own_frames, 1, "{unknown}");
    }
}

#[test]
fn the_start_of_a_sale_is_told_to_everybody_within_its_spread() {
    let start = at(100);
    let mut world = World::new(RoomTerms { sale_starts_at: Some(start), ..terms(1) });
    for number in 1..=100 {
        world.join(number, GENERAL);
        world.listens(number, None);
    }
    world.reads();
    assert!(world.clients.values().all(|(_, client)| client.status == "PreSale"));
    world.now = start;
    let mut told = Vec::new();
    for _ in 0..8 {
        world.passes(250);
        world.reads();
        told.push(world.clients.values().filter(|(_, client)| client.status == "Waiting").count());
    }
    assert!(told[0] > 0 && told[0] < 50, "{told:?}: not all at once");
    assert_eq!(told[7], 100, "{told:?}");
    world.agrees();
}

#[test]
fn modes_are_told_to_whoever_waits() {
    let mut world = World::new(terms(1));
    for number in 1..=2 {
        world.join(number, GENERAL);
    }
    world.told(&RoomInput::Tick(STOCK));
    let client = world.listens(2, None);
    world.passes(10);
    world.reads();
    let modes = [(AdmissionMode::Paused, "paused"), (AdmissionMode::Draining, "draining"), (AdmissionMode::Running, "running")];
    for (version, (mode, event)) in (1..).zip(modes) {
        let admission = Admission { mode, ..world.room.admission() };
        world.told(&RoomInput::Admit { admission, version });
        world.passes(10);
        let listener = world.clients[&client].0.clone();
        let mut said = Vec::new();
        while let Some(Next::Frame(frame)) = waiting(&listener) {
            world.clients.get_mut(&client).unwrap().1.hears(&frame);
            said.push(String::from_utf8(frame.to_vec()).unwrap());
        }
        assert!(said.iter().any(|frame| frame.starts_with(&format!("event: {event}\n"))), "{event}: {said:?}");
    }
    assert_eq!(world.room.place(entry(2), world.now).unwrap().status, QueueStatus::Waiting);
}

#[test]
fn a_pause_is_told_to_whoever_begins_to_listen_in_it() {
    let mut world = World::new(terms(1));
    for number in 1..=3 {
        world.join(number, GENERAL);
    }
    world.told(&RoomInput::Tick(STOCK));
    world.listens(3, None);
    let admission = Admission { mode: AdmissionMode::Paused, ..world.room.admission() };
    world.told(&RoomInput::Admit { admission, version: 1 });
    world.passes(10);
    world.reads();
    let events = |world: &mut World, client: u64| {
        let listener = world.clients[&client].0.clone();
        let mut events = Vec::new();
        while let Some(Next::Frame(frame)) = waiting(&listener) {
            let client = &mut world.clients.get_mut(&client).unwrap().1;
            client.hears(&frame);
            events.push(String::from_utf8(frame.to_vec()).unwrap().lines().next().unwrap().replace("event: ", ""));
        }
        events
    };
    let (waits, has_a_turn) = (world.listens(2, None), world.listens(1, None));
    assert_eq!(events(&mut world, waits), ["queue", "paused"]);
    assert_eq!(events(&mut world, has_a_turn), ["queue"]);
    world.passes(1_500);
    world.passes(1_500);
    assert_eq!(events(&mut world, waits), ["queue", "position"], "one more own frame, then what all are told");
    world.agrees();
}

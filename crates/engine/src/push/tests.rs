//! Long random runs of a room and of clients that know nothing but their frames. After each of them, what a client
//! computes from its frames is what polling says.

mod world;

use boxoffice_domain::waiting::{LaneTerms, PlaceClaim, QueueStatus, Room, RoomInput, RoomTerms};
use boxoffice_domain::{Admission, AdmissionMode, Stock, UserId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::world::{World, entry, ready};
use super::{End, Next};
use crate::testing::at;

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
        world.apply(&RoomInput::Tick(STOCK));
        let mut people = 0_u128;
        for step in 0..600 {
            match random.random_range(0..100) {
                0..30 => {
                    people += 1;
                    world.join(people, boxoffice_domain::Lane(u8::from(random.random_bool(0.3))));
                }
                30..50 if people > 0 => {
                    world.listen(random.random_range(1..=people), None);
                }
                50..62 if people > 0 => world.apply(&RoomInput::Leave { entry: entry(random.random_range(1..=people)) }),
                62..68 => {
                    if let Some(client) = world.clients.keys().min().copied() {
                        world.disconnect(client);
                    }
                }
                68..72 => {
                    let obtainable = if random.random_bool(0.5) { 0 } else { STOCK.obtainable };
                    world.apply(&RoomInput::Tick(Stock { obtainable, ..STOCK }));
                }
                72..74 if people > 0 => {
                    // An entry that the room has lost comes back to its place.
                    let place = random.random_range(1..=world.room.last_place() + 3);
                    people += 1;
                    let user = UserId(uuid::Uuid::from_u128(people));
                    let claim = PlaceClaim { entry: entry(people), user, lane: GENERAL, place, active_until: None };
                    world.apply(&RoomInput::Restore(claim));
                }
                75 => {
                    let mode = if random.random_bool(0.7) { AdmissionMode::Running } else { AdmissionMode::Paused };
                    let admission = Admission { mode, ..world.room.admission() };
                    world.apply(&RoomInput::Admit { admission, version: step });
                }
                74 => {
                    // Another replica in the place of this one.
                    world.room = Room::from(world.room.state());
                    world.generation += 1;
                }
                _ => {
                    world.apply(&RoomInput::Tick(STOCK));
                    world.pass(random.random_range(50..400));
                    world.read_all();
                }
            }
            if step % 100 == 99 {
                world.apply(&RoomInput::Tick(STOCK));
                world.assert_agreement();
            }
        }
        assert!(world.clients.values().all(|(_, client)| client.ended != Some(End::Slow)), "seed {seed}");
    }
}

#[test]
fn entries_that_wait_cost_no_own_frames() {
    let mut world = World::new(terms(1));
    for number in 1..=50 {
        world.join(number, GENERAL);
        world.listen(number, None);
    }
    for leaver in [3, 30] {
        world.apply(&RoomInput::Leave { entry: entry(leaver) });
    }
    world.apply(&RoomInput::Tick(STOCK));
    world.assert_agreement();
    // The twenty nearest were near from the beginning. Of the others, those that became near got another one.
    let again = world.clients.values().filter(|(_, client)| client.own_frames > 1).count();
    assert!((1..=4).contains(&again), "{again}");
}

#[test]
fn an_entry_that_becomes_near_gets_frames_as_often_as_those_that_were_near() {
    let mut world = World::new(terms(1));
    for number in 1..=30 {
        world.join(number, GENERAL);
    }
    let client = world.listen(30, None);
    let frames_in_ten_seconds = |world: &mut World| {
        let before = world.clients[&client].1.frames;
        for _ in 0..40 {
            world.pass(250);
            world.read_all();
        }
        world.clients[&client].1.frames - before
    };
    let far = frames_in_ten_seconds(&mut world);
    assert!((2..=4).contains(&far), "{far}: every five seconds, and one own frame");
    for leaver in 1..=15 {
        world.apply(&RoomInput::Leave { entry: entry(leaver) });
    }
    world.assert_agreement();
    let near = frames_in_ten_seconds(&mut world);
    assert!((9..=11).contains(&near), "{near}: every second");
}

#[test]
fn a_promotion_is_sent_at_once_and_an_end_ends_the_listener() {
    let mut world = World::new(terms(1));
    for number in 1..=3 {
        world.join(number, GENERAL);
    }
    let clients: Vec<_> = (1..=3).map(|number| world.listen(number, None)).collect();
    world.apply(&RoomInput::Tick(STOCK));
    world.read_all();
    assert_eq!(world.clients[&clients[0]].1.status, "Active", "before any pulse");
    world.apply(&RoomInput::Leave { entry: entry(2) });
    world.now += chrono::TimeDelta::seconds(601);
    world.apply(&RoomInput::Tick(STOCK));
    world.read_all();
    let client = |at: usize| &world.clients[&clients[at]].1;
    assert_eq!((client(0).status.as_str(), client(0).ended), ("Expired", Some(End::Over)));
    assert_eq!((client(1).status.as_str(), client(1).ended), ("Left", Some(End::Over)));
    assert_eq!(client(2).status, "Active");
}

#[test]
fn a_client_that_resumes_gets_the_missed_frames_or_an_own_frame() {
    let mut world = World::new(terms(1));
    for number in 1..=10 {
        world.join(number, GENERAL);
        world.listen(number, None);
    }
    world.assert_agreement();
    let client = world.disconnect(9).unwrap();
    world.apply(&RoomInput::Tick(STOCK));
    world.apply(&RoomInput::Leave { entry: entry(5) });
    world.pass(1_000);
    world.read_all();
    let resumed = world.listen(9, Some(client.seq));
    let (own_frames, seq) = (client.own_frames, client.seq);
    world.clients.get_mut(&resumed).unwrap().1 = client;
    world.assert_agreement();
    let client = &world.clients[&resumed].1;
    assert_eq!((client.own_frames, client.ahead), (own_frames, Some(6)), "no further own frame");
    assert!(client.seq > seq);
    // A number that is long past, or another stream's, is not known.
    for unknown in [seq - 100, seq + 1_000] {
        let begun = world.listen(9, Some(unknown));
        world.read_all();
        assert_eq!(world.clients[&begun].1.own_frames, 1, "{unknown}");
    }
}

#[test]
fn the_start_of_a_sale_reaches_every_listener_within_its_spread() {
    let start = at(100);
    let mut world = World::new(RoomTerms { sale_starts_at: Some(start), ..terms(1) });
    for number in 1..=100 {
        world.join(number, GENERAL);
        world.listen(number, None);
    }
    world.read_all();
    assert!(world.clients.values().all(|(_, client)| client.status == "PreSale"));
    world.now = start;
    let mut reached = Vec::new();
    for _ in 0..8 {
        world.pass(250);
        world.read_all();
        reached.push(world.clients.values().filter(|(_, client)| client.status == "Waiting").count());
    }
    assert!(reached[0] > 0 && reached[0] < 50, "{reached:?}: not all at once");
    assert_eq!(reached[7], 100, "{reached:?}");
    world.assert_agreement();
}

#[test]
fn modes_are_sent_to_listeners_whose_entries_wait() {
    let mut world = World::new(terms(1));
    for number in 1..=2 {
        world.join(number, GENERAL);
    }
    world.apply(&RoomInput::Tick(STOCK));
    let client = world.listen(2, None);
    world.pass(10);
    world.read_all();
    let modes = [(AdmissionMode::Paused, "paused"), (AdmissionMode::Draining, "draining"), (AdmissionMode::Running, "running")];
    for (version, (mode, event)) in (1..).zip(modes) {
        let admission = Admission { mode, ..world.room.admission() };
        world.apply(&RoomInput::Admit { admission, version });
        world.pass(10);
        let listener = world.clients[&client].0.clone();
        let mut frames = Vec::new();
        while let Some(Next::Frame(frame)) = ready(&listener) {
            world.clients.get_mut(&client).unwrap().1.reads(&frame);
            frames.push(String::from_utf8(frame.to_vec()).unwrap());
        }
        assert!(frames.iter().any(|frame| frame.starts_with(&format!("event: {event}\n"))), "{event}: {frames:?}");
    }
    assert_eq!(world.room.place(entry(2), world.now).unwrap().status, QueueStatus::Waiting);
}

#[test]
fn a_listener_that_begins_during_a_pause_gets_it() {
    let mut world = World::new(terms(1));
    for number in 1..=3 {
        world.join(number, GENERAL);
    }
    world.apply(&RoomInput::Tick(STOCK));
    world.listen(3, None);
    let admission = Admission { mode: AdmissionMode::Paused, ..world.room.admission() };
    world.apply(&RoomInput::Admit { admission, version: 1 });
    world.pass(10);
    world.read_all();
    let events = |world: &mut World, client: u64| {
        let listener = world.clients[&client].0.clone();
        let mut events = Vec::new();
        while let Some(Next::Frame(frame)) = ready(&listener) {
            let client = &mut world.clients.get_mut(&client).unwrap().1;
            client.reads(&frame);
            events.push(String::from_utf8(frame.to_vec()).unwrap().lines().next().unwrap().replace("event: ", ""));
        }
        events
    };
    let (waits, has_a_turn) = (world.listen(2, None), world.listen(1, None));
    assert_eq!(events(&mut world, waits), ["queue", "paused"]);
    assert_eq!(events(&mut world, has_a_turn), ["queue"]);
    world.pass(1_500);
    world.pass(1_500);
    assert_eq!(events(&mut world, waits), ["queue", "position"], "one more own frame, then the shared ones");
    world.assert_agreement();
}

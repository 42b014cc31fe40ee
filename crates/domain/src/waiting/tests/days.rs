//! Random days, checked against a plain list: never too many, never too fast, no entry overtaken, none lost from the
//! counts, also when clocks are set back; and a tick that is not due changes nothing.

use super::super::forecast::Forecast;
use super::super::presence::Presence;
use super::*;

/// What a plain list makes of the changes a room hands out.
#[derive(Default)]
struct Watched {
    latest: HashMap<QueueEntryId, RoomChange>,
    promotions: Vec<Timestamp>,
}

impl Watched {
    /// `terms`, `stock`: what held when these changes came about.
    fn see(&mut self, changes: &[RoomChange], room: &Room, stock: Stock, now: Timestamp) {
        // A drawn entry gets its place without a change of status.
        for change in self.latest.values_mut().filter(|change| change.place == 0) {
            change.place = room.place(change.entry, now).unwrap().arrival;
        }
        let admission = room.admission();
        for change in changes {
            if change.was == Some(QueueStatus::Waiting) && change.status == QueueStatus::Active {
                let waits = |other: &RoomChange| {
                    other.status == QueueStatus::Waiting && other.lane == change.lane && (1..change.place).contains(&other.place)
                };
                assert!(!self.latest.values().any(waits), "an entry before {change:?} still waits");
                assert_eq!(change.promoted_at, Some(now));
                assert_ne!(admission.mode, AdmissionMode::Paused);
                assert!(stock.obtainable > 0);
                assert!(room.terms().sale_starts_at.is_none_or(|start| start <= now), "before the sale");
                let undrawn = room.draw().is_some_and(|draw| draw.seed.is_none() && draw.keys.is_none_or(|keys| !keys.is_empty()));
                assert!(!undrawn && change.place > 0, "before the draw");
                self.promotions.push(now);
            }
            if let Some(before) = self.latest.insert(change.entry, change.clone()) {
                assert_eq!(change.was, Some(before.status), "{change:?}");
                assert_eq!((before.place, before.user, before.lane), (change.place, change.user, change.lane));
                assert!(!before.status.is_ended(), "an ended entry changed: {change:?}");
            } else {
                assert_eq!(change.was, None);
            }
        }
        if changes.iter().any(|change| change.status == QueueStatus::Active && change.was != Some(QueueStatus::Active)) {
            let able = self.able_to_hold(now);
            assert!(able <= u64::from(admission.max_active), "I4: {able} able to hold");
        }
        let promoted = changes.iter().any(|change| change.was == Some(QueueStatus::Waiting) && change.status == QueueStatus::Active);
        if promoted && stock.linked {
            assert!(self.able_to_hold(now) <= stock.obtainable, "more buyers than seats");
        }
        if let Some(rate) = admission.per_interval.filter(|_| promoted) {
            let from = now - TimeDelta::seconds(i64::from(rate.seconds));
            let within = self.promotions.iter().filter(|promoted| **promoted > from).count();
            assert!(within <= rate.count as usize, "{within} admitted within {} s", rate.seconds);
        }
    }

    /// By the room's clock; by any other no window begins anew.
    fn move_back(&mut self, by: TimeDelta) {
        self.promotions.iter_mut().for_each(|at| *at -= by);
    }

    fn able_to_hold(&self, now: Timestamp) -> u64 {
        let able = |change: &&RoomChange| change.status == QueueStatus::Active && change.active_until.is_some_and(|until| until > now);
        self.latest.values().filter(able).count() as u64
    }

    fn with(&self, status: QueueStatus) -> u64 {
        self.latest.values().filter(|change| change.status == status).count() as u64
    }

    fn check(&self, room: &Room, now: Timestamp) {
        let (counts, able) = (room.counts(now), self.able_to_hold(now));
        let overdue = self.with(QueueStatus::Active) - able;
        assert_eq!(
            (counts.waiting, counts.active, counts.served, counts.left, counts.expired),
            (
                self.with(QueueStatus::Waiting),
                able,
                self.with(QueueStatus::Done),
                self.with(QueueStatus::Left),
                self.with(QueueStatus::Expired) + overdue,
            )
        );
        let came = self.latest.len() as u64;
        assert_eq!(counts.waiting + counts.active + counts.served + counts.left + counts.expired, came, "all who came");
        let mut places = HashSet::new();
        for change in self.latest.values() {
            let place = room.place(change.entry, now).unwrap();
            assert_eq!((place.arrival, place.lane, place.user), (change.place, change.lane, change.user));
            assert!(place.arrival == 0 || places.insert(place.arrival), "place {} was given twice", place.arrival);
            assert!(place.arrival <= room.last_place());
            if let Some(ahead) = place.ahead.filter(|_| place.status != QueueStatus::Active) {
                let before = |other: &&RoomChange| {
                    other.status == QueueStatus::Waiting && other.lane == change.lane && (1..change.place).contains(&other.place)
                };
                assert_eq!(ahead, self.latest.values().filter(before).count() as u64);
            }
            assert_eq!(place.active_until.is_some(), place.status == QueueStatus::Active);
        }
    }
}

/// What is at `now` of a room without what passes by itself: the time, a silence of all, and what is measured of them.
fn substance(room: &Room, now: Timestamp) -> RoomState {
    let mut state = room.state();
    let mut presence = Presence::from_state(state.presence);
    presence.after_silence(now.max(state.latest_at) - state.latest_at);
    state.presence = presence.state();
    state.latest_at = Timestamp::UNIX_EPOCH;
    for at in 0..state.lanes.all().len() {
        state.lanes.get_mut(Lane(at as u8)).forecast = Forecast::default();
    }
    state.lengths = Lengths::default();
    state.turns.take_freed();
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_too_many_nor_too_fast_nor_out_of_order(terms in day_terms(), steps in prop::collection::vec(step(), 1..160)) {
        let mut room = Room::new(concert(), terms);
        let (mut now, mut next, mut watched, mut stock) = (0, 0, Watched::default(), Stock::default());
        for step in steps {
            if let Step::Pass(ms) = step {
                now += ms;
            }
            if let Step::SetBack(ms) = step {
                now -= ms;
                let ahead = room.latest_at - at(now);
                if room.is_ahead_of(at(now)) {
                    prop_assert!(room.is_due(at(now), stock));
                    watched.move_back(ahead);
                } else {
                    // So little that the room's time stands still.
                    now += ahead.num_milliseconds().max(0);
                }
            }
            if let Some(input) = input(&step, &room, now, &mut next) {
                let mut changes = Vec::new();
                let was_there = match &input {
                    RoomInput::Join { user, .. } => room.entry_of(*user).and_then(|known| room.place(known, at(now))),
                    _ => None,
                };
                let last = room.last_place();
                let is_due = |stock| (room.is_due(at(now), stock), substance(&room, at(now)));
                let before = if let RoomInput::Tick(case) = &input { stock = *case; Some(is_due(*case)) } else { None };
                let output = room.apply(at(now), &input, &mut changes);
                if let RoomOutput::Entered(entered) = &output {
                    match was_there.filter(|place| !place.status.is_ended()) {
                        Some(place) => {
                            prop_assert!(!entered.new && changes.is_empty());
                            prop_assert_eq!(entered.place.entry, place.entry);
                        }
                        // A list that was closed by this very input has its places first.
                        None => prop_assert!(entered.new && (entered.place.arrival == 0 || entered.place.arrival > last)),
                    }
                }
                if let Some((due, before)) = before {
                    let changed = !changes.is_empty() || substance(&room, at(now)) != before;
                    // A room with nothing in it has nothing to take back with the clock.
                    let is_set_back = matches!(step, Step::SetBack(_));
                    prop_assert!(due == changed || (due && is_set_back), "due: {due}, changed: {changed}");
                    prop_assert!(due || output == RoomOutput::Ticked(Ticked::default()));
                }
                watched.see(&changes, &room, stock, at(now));
            }
            watched.check(&room, at(now));
        }
        // It comes to an end: with everything open no entry waits for ever.
        let open = RoomInput::Admit { admission: admission(50, None), version: 1_000 };
        let seed = RoomInput::Reveal { seed: SEED, beacon: None };
        // Every sale has started by then.
        now = now.max(40_000);
        for (after_s, input) in [(0, open), (20, RoomInput::Tick(PLENTY)), (20, seed), (20, RoomInput::Tick(PLENTY))] {
            now += after_s * 1_000;
            room.apply(at(now), &input, &mut Vec::new());
        }
        prop_assert_eq!(room.counts(at(now)).waiting, 0);
    }
}

#[test]
fn a_tick_is_due_for_each_reason_alone() {
    let quiet = || {
        let mut case = RoomCase::with(terms(admission(1, None)), 2);
        case.ticked(0, PLENTY);
        assert!(!case.room.is_due(at(1), PLENTY), "a place is taken, and nothing else happens");
        case
    };
    let over = i64::from(TTL_S) * 1_000;
    let case = quiet();
    assert!(!case.room.is_due(at(over - 1), PLENTY) && case.room.is_due(at(over), PLENTY), "a turn is over");
    assert!(case.room.is_due(at(1), Stock { obtainable: 999, ..PLENTY }), "the stock is another");
    assert!(case.room.is_due(at(1), Stock { linked: false, ..PLENTY }));
    let mut case = quiet();
    case.leave(1, 1);
    assert!(case.room.is_due(at(1), PLENTY), "a slot is free");
    case.leave(2, 1);
    assert!(!case.room.is_due(at(1), PLENTY));
    let forgotten = ENDED_KEPT_S * 1_000 + 1;
    assert!(!case.room.is_due(at(forgotten), PLENTY) && case.room.is_due(at(forgotten + 1), PLENTY), "an entry is to be forgotten");
    let mut case = quiet();
    case.appear(1, 1);
    let lost = 1 + INSTANCE_LOST_S * 1_000;
    assert!(!case.room.is_due(at(lost + 1), PLENTY), "a silence of all instances counts against none");
    case.apply(lost - 5_000, RoomInput::Report { instance: instance(2), health: None });
    assert!(!case.room.is_due(at(lost), PLENTY) && case.room.is_due(at(lost + 1), PLENTY), "an instance is silent");
    let mut case = quiet();
    case.appear(1, 1);
    case.connect(1, &[1, 2], 1);
    case.disconnect(1, &[1], 1);
    let gone = 1 + i64::from(GRACE_S) * 1_000;
    case.apply(gone - 1, RoomInput::Report { instance: instance(1), health: None });
    assert!(!case.room.is_due(at(gone - 1), PLENTY) && case.room.is_due(at(gone), PLENTY), "an entry is gone");
    let mut case = RoomCase::new(drawn(admission(1, None), 1_000));
    case.ticked(0, PLENTY);
    assert!(!case.room.is_due(at(999), PLENTY) && case.room.is_due(at(1_000), PLENTY), "the list is to be closed");
}

//! Random days that end in a loss, after which every entry comes back, in any order, with any of its tokens.

use super::*;

const PEOPLE: u128 = 24;
const RESERVED: u64 = 1_000;

#[derive(Clone, Debug)]
enum Act {
    Pass(i64),
    Join(u128, u8),
    Leave(u128),
    Finish(u128),
    Poll(u128),
    Tick,
    Draw,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0i64..1_500).prop_map(Act::Pass),
        1 => (0i64..30_000).prop_map(Act::Pass),
        9 => (0..PEOPLE, 0u8..3).prop_map(|(of, lane)| Act::Join(of, lane)),
        1 => (0..PEOPLE).prop_map(Act::Leave),
        1 => (0..PEOPLE).prop_map(Act::Finish),
        4 => (0..PEOPLE).prop_map(Act::Poll),
        6 => Just(Act::Tick),
        1 => Just(Act::Draw),
    ]
}

/// An entry comes back, or a tick, or a user joins who has lost the token.
#[derive(Clone, Debug)]
enum Return {
    By { of: u128, older: prop::sample::Index },
    Tick(i64),
    Join(u128),
}

fn coming_back() -> impl Strategy<Value = Vec<Return>> {
    let back = (0..PEOPLE).map(|of| (Just(of), any::<prop::sample::Index>()).prop_map(|(of, older)| Return::By { of, older }).boxed());
    let others =
        prop::collection::vec(prop_oneof![2 => (0i64..700).prop_map(Return::Tick), 1 => (0..PEOPLE + 5).prop_map(Return::Join)], 0..12);
    (back.collect::<Vec<_>>(), others).prop_map(|(back, others)| [back, others].concat()).prop_shuffle()
}

struct Day {
    case: RoomCase,
    now: i64,
    next: u128,
    /// Of each entry, in the order in which they were given.
    tokens: HashMap<QueueEntryId, Vec<PlaceClaim>>,
    promotions: Vec<i64>,
    rate: Option<PerInterval>,
}

impl Day {
    fn act(&mut self, act: &Act) {
        let now = self.now;
        let entry_of = |case: &RoomCase, of: u128| case.room.entry_of(user(of));
        match act {
            Act::Pass(ms) => self.now += ms,
            Act::Join(of, lane) => {
                self.next += 1;
                let place = self.case.join_lane(*of, self.next, *lane, now).place;
                self.tokens.entry(place.entry).or_default().push(claim(&place));
            }
            Act::Leave(of) => drop(entry_of(&self.case, *of).map(|entry| self.case.apply(now, RoomInput::Leave { entry }))),
            Act::Finish(of) => self.case.finish(*of, now, now),
            Act::Poll(of) => self.poll(*of),
            Act::Tick => self.tick(),
            Act::Draw => self.case.reveal(None, now),
        }
    }

    fn poll(&mut self, of: u128) {
        let place = self.case.room.entry_of(user(of)).and_then(|entry| self.case.room.place(entry, at(self.now)));
        if let Some(place) = place.filter(|place| !place.status.is_ended()) {
            self.tokens.entry(place.entry).or_default().push(claim(&place));
        }
    }

    /// A promoted entry is the first of its lane, and within the rate.
    fn tick(&mut self) {
        let waiting: Vec<_> = self.living().into_iter().filter(|place| place.status.is_waiting()).collect();
        let promoted = self.case.tick(self.now, PLENTY);
        for entry in &promoted {
            let place = self.case.room.place(*entry, at(self.now)).unwrap();
            let still = |other: &&Place| other.lane == place.lane && !promoted.contains(&other.entry) && other.arrival > 0;
            assert!(waiting.iter().filter(still).all(|other| other.arrival > place.arrival), "{place:?} overtook another");
        }
        self.promotions.extend(promoted.iter().map(|_| self.now));
        if let Some(rate) = self.rate.filter(|_| !promoted.is_empty()) {
            let from = self.now - i64::from(rate.seconds) * 1_000;
            let within = self.promotions.iter().filter(|promoted| **promoted > from).count();
            assert!(within <= rate.count as usize, "{within} promotions in {} s", rate.seconds);
        }
    }

    fn living(&self) -> Vec<Place> {
        let places = self.case.room.entries.keys().filter_map(|entry| self.case.room.place(*entry, at(self.now)));
        places.filter(|place| !place.status.is_ended()).collect()
    }

    fn check(&self, max_active: u32) {
        let living = self.living();
        assert!(living.iter().filter(|place| place.status == QueueStatus::Active).count() <= max_active as usize, "I4");
        let (mut places, mut users) = (HashSet::new(), HashSet::new());
        for place in &living {
            assert!(place.arrival == 0 || places.insert(place.arrival), "two at {}", place.arrival);
            assert!(users.insert(place.user), "two places of one user");
            if let (Some(ahead), true) = (place.ahead, place.status.is_waiting()) {
                let before = living
                    .iter()
                    .filter(|other| other.status.is_waiting() && other.lane == place.lane && (1..place.arrival).contains(&other.arrival));
                assert_eq!(ahead, before.count() as u64);
            }
        }
        assert_eq!(by_log(&self.case.room).state(), self.case.room.state());
    }
}

fn day(terms: RoomTerms, acts: &[Act]) -> (Day, Vec<Saved>) {
    let rate = terms.admission.per_interval;
    let mut day = Day { case: RoomCase::new(terms), now: 0, next: 0, tokens: HashMap::new(), promotions: Vec::new(), rate };
    day.case.apply(0, RoomInput::Reserve { to: RESERVED });
    let mut saves = vec![saved(&day.case, 0)];
    for act in acts {
        day.act(act);
        saves.push(saved(&day.case, day.now));
    }
    (day, saves)
}

fn loss_terms(has_lanes: bool) -> impl Strategy<Value = RoomTerms> {
    // A rate over more than three seconds goes on from the turns that are known.
    let admitted = (1u32..6, prop::option::of((1u32..4, 1u32..=3))).prop_map(|(max, rate)| admission(max, rate));
    (admitted, prop::option::of(0i64..6_000)).prop_map(move |(admission, start)| RoomTerms {
        lanes: if has_lanes { vec![lane("fans", 300), lane("press", 100)] } else { Vec::new() },
        ..start.map_or_else(|| terms(admission), |start| drawn(admission, start))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The mirror knows all that was answered: every entry has again what it had.
    #[test]
    fn every_entry_gets_back_what_it_had(
        terms in loss_terms(false),
        acts in prop::collection::vec(act(), 1..120),
        returns in coming_back(),
    ) {
        let max_active = terms.admission.max_active;
        let (mut day, saves) = day(terms.clone(), &acts);
        let lost_at = day.now;
        let before = std::mem::replace(&mut day.case, rebuilt(terms, saves.last().unwrap(), lost_at));
        day.check(max_active);
        let mut new = HashSet::new();
        for step in returns {
            match step {
                Return::Tick(ms) => {
                    day.now += ms;
                    day.tick();
                }
                Return::Join(of) => {
                    day.next += 1;
                    day.case.apply(day.now, RoomInput::Reserve { to: 10 * RESERVED });
                    let entered = day.case.join(of, day.next, day.now);
                    if entered.new {
                        prop_assert!(entered.place.arrival == 0 || entered.place.arrival > RESERVED);
                        new.insert(entered.place.user);
                    }
                }
                Return::By { of, older } => {
                    let Some(latest) = before.room.entry_of(user(of)) else { continue };
                    let was = before.room.place(latest, at(lost_at)).unwrap();
                    let token = *older.get(&day.tokens[&latest]);
                    let had_turn = before.changes.iter().any(|change| change.entry == latest && change.status == QueueStatus::Active);
                    let back = day.case.restore(token, day.now);
                    if new.contains(&user(of)) {
                        // They came without it: they have one place either way.
                        prop_assert!(back.is_none_or(|back| back.arrival == was.arrival || back.arrival == 0 || was.arrival == 0));
                    } else if was.status.is_waiting() {
                        let has = back.as_ref().is_some_and(|back| back.arrival == was.arrival || was.arrival == 0);
                        prop_assert!(has && back.as_ref().is_some_and(|back| back.status.is_waiting()), "{:?} was {:?}", back, was);
                    } else if was.status == QueueStatus::Active {
                        let is_over = was.active_until <= Some(at(day.now));
                        let expected = if is_over { (QueueStatus::Expired, None) } else { (QueueStatus::Active, was.active_until) };
                        prop_assert_eq!(back.map(|back| (back.status, back.active_until)), Some(expected));
                    } else if had_turn {
                        prop_assert!(back.is_none_or(|back| back.status.is_ended()), "what had ended goes on");
                    }
                }
            }
            day.check(max_active);
        }
        // All who are there are admitted in the order of their places, those from before the loss first.
        for _ in 0..200 {
            day.now += 2_000;
            day.case.reveal(None, day.now);
            day.tick();
            day.living().into_iter().filter(|place| place.status == QueueStatus::Active).for_each(|place| {
                day.case.apply(day.now, RoomInput::Leave { entry: place.entry });
            });
        }
        prop_assert_eq!(day.living(), []);
    }

    /// The mirror is behind, as far as it likes, there are lanes, and the loss happens twice: never too many, never two
    /// at one place, never two places of one user, no entry overtaken among those that are there.
    #[test]
    fn never_too_many_however_old_the_mirror_is(
        terms in loss_terms(true),
        acts in prop::collection::vec(act(), 1..100),
        behind in (0usize..40, 0usize..40),
        returns in prop::collection::vec(coming_back(), 2),
    ) {
        let terms = RoomTerms { admission: Admission { per_interval: None, ..terms.admission }, ..terms };
        let max_active = terms.admission.max_active;
        let (mut day, mut saves) = day(terms.clone(), &acts);
        let mut reserved = RESERVED;
        day.rate = None;
        for (returns, behind) in returns.into_iter().zip([behind.0, behind.1]) {
            let mut old = saves[saves.len().saturating_sub(1 + behind)].clone();
            // Places and draws are saved in the mirror before they are answered.
            old.mark.last_place = reserved;
            old.draw.clone_from(&saves.last().unwrap().draw);
            day.case = rebuilt(terms.clone(), &old, day.now);
            reserved += RESERVED;
            day.case.apply(day.now, RoomInput::Reserve { to: reserved });
            saves = vec![saved(&day.case, day.now)];
            for step in returns {
                match step {
                    Return::Tick(ms) => {
                        day.now += ms;
                        day.tick();
                    }
                    Return::Join(of) => day.act(&Act::Join(of, 1)),
                    Return::By { of, older } => {
                        let mut all: Vec<_> = day.tokens.values().flatten().filter(|token| token.user == user(of)).copied().collect();
                        all.sort_unstable_by_key(|token| (token.place, token.entry, token.active_until));
                        if !all.is_empty() {
                            let token = *older.get(&all);
                            let back = day.case.restore(token, day.now);
                            prop_assert!(back.is_none_or(|back| back.entry == token.entry && (token.place == 0 || back.arrival == token.place)));
                        }
                    }
                }
                day.check(max_active);
                saves.push(saved(&day.case, day.now));
            }
        }
    }
}

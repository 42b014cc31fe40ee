//! The events of a world, in their order, applied to its room as one instance would: the inputs of one tick are applied
//! at its end, and then the tick itself, if it would change anything.
//!
//! It ends when every buyer is gone, when nothing is left to sell, or after [`DURATION_S_MAX`].

mod summary;

use super::buyer::{Buyer, Fate};
use super::crowd::{Arrival, Crowd};
use super::judge::{Judge, round};
use super::report::{Fates, Moment, Report};
use super::servers;
use super::world::World;
use boxoffice_domain::waiting::{Room, RoomChange, RoomInput, RoomOutput};
use boxoffice_domain::{AdmissionMode, ConcertId, InstanceId, Lane, QueueEntryId, QueueStatus, Stock, Timestamp, UserId, draw};
use chrono::{DateTime, TimeDelta};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use uuid::Uuid;

/// The longest sale, seconds; a longer one is cut off.
const DURATION_S_MAX: u64 = 14 * 24 * 3_600;
/// A buyer that finds no free seat retries after this time.
const RETRY_MS: u32 = 5_000;
/// The most moments that are kept: at this number every other one is dropped.
const MOMENTS_MAX: usize = 1_024;
const SECOND_MS: u64 = 1_000;

/// A buyer's next action.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Plan {
    GiveUp,
    /// Choose seats, for the first time (0) or again until that instant.
    Choose {
        until_ms: u64,
    },
    Decide,
}

struct Run<'a> {
    world: &'a World,
    crowd: Crowd,
    room: Room,
    start_ms: u64,
    now_ms: u64,
    buyers: Vec<Buyer>,
    /// How long promotion had run when each buyer was promoted, milliseconds.
    ran_at: Vec<u32>,
    plans: BinaryHeap<Reverse<(u64, u32, Plan)>>,
    inputs: Vec<RoomInput>,
    changes: Vec<RoomChange>,
    served: Vec<u32>,
    judge: Judge,
    sold: u64,
    held: u64,
    waiting: u64,
    active: u64,
    /// Active buyers that have come to their turn and not decided.
    shoppers: u64,
    fates: Fates,
    paused: bool,
    sums: Sums,
    timeline: Vec<Moment>,
    moments_apart_ms: u64,
    seed: [u8; 32],
    sold_out_ms: Option<u64>,
}

/// Integrals over the time so far, milliseconds.
#[derive(Default)]
struct Sums {
    crowded: f64,
    active: f64,
    max_active: f64,
    promoted: f64,
    unsold: f64,
    idle: f64,
    active_most: u64,
    max_active_most: u64,
}

/// Plays `world` to its end. `progress` is called now and then with the share of the buyers that are through, or of the
/// seats that are sold, whichever is larger.
pub fn simulate(world: &World, progress: &mut dyn FnMut(f64)) -> Report {
    let mut crowd = Crowd::new(world);
    let arrivals = crowd.arrivals();
    let mut run = Run::new(world, crowd);
    let mut next = 0;
    while !run.is_over(next == arrivals.len()) {
        run.step(&arrivals, &mut next);
        if run.now_ms.is_multiple_of(20 * SECOND_MS) {
            let through = (run.fates.had_a_turn + run.fates.gave_up) as f64 / f64::from(world.buyers);
            progress(through.max(run.sold as f64 / f64::from(world.seats)));
        }
    }
    run.report()
}

impl<'a> Run<'a> {
    fn new(world: &'a World, mut crowd: Crowd) -> Self {
        let seed = crowd.seed();
        let start_ms = u64::from(crowd.start_ms());
        let mut terms = world.terms();
        if start_ms > 0 {
            terms.sale_starts_at = Some(at(start_ms));
            terms.commitment = Some(draw::commitment(&seed));
        }
        Self {
            world,
            crowd,
            room: Room::new(ConcertId(Uuid::from_u128(1)), terms),
            start_ms,
            now_ms: 0,
            buyers: Vec::with_capacity(world.buyers as usize),
            ran_at: vec![0; world.buyers as usize],
            plans: BinaryHeap::new(),
            inputs: Vec::new(),
            changes: Vec::new(),
            served: Vec::new(),
            judge: Judge::default(),
            sold: 0,
            held: 0,
            waiting: 0,
            active: 0,
            shoppers: 0,
            fates: Fates::default(),
            paused: false,
            sums: Sums::default(),
            timeline: Vec::new(),
            moments_apart_ms: SECOND_MS,
            seed,
            sold_out_ms: None,
        }
    }

    fn is_over(&self, all_arrived: bool) -> bool {
        let no_buyer = self.waiting == 0 && self.active == 0;
        let no_seat = self.sold == u64::from(self.world.seats) && self.active == 0;
        (all_arrived && (no_buyer || no_seat)) || self.now_ms > DURATION_S_MAX * SECOND_MS
    }

    fn step(&mut self, arrivals: &[Arrival], next: &mut usize) {
        let tick = u64::from(self.world.tick_ms);
        let before_ms = self.now_ms;
        self.now_ms += tick;
        if self.waiting == 0 && self.active == 0 {
            // The room is empty: skip to the tick after the next arrival.
            let arrives_ms = arrivals.get(*next).map_or(self.now_ms, |arrival| u64::from(arrival.at_ms));
            self.now_ms = self.now_ms.max(arrives_ms.div_ceil(tick) * tick);
        }
        self.pause();
        self.measure(self.now_ms - before_ms);
        while let Some(arrival) = arrivals.get(*next).filter(|arrival| u64::from(arrival.at_ms) <= self.now_ms) {
            *next += 1;
            self.arrive(*arrival);
        }
        while let Some(Reverse((_, buyer, plan))) = self.plans.peek().copied().filter(|Reverse((due_ms, ..))| *due_ms <= self.now_ms) {
            self.plans.pop();
            self.act(buyer, plan);
        }
        self.apply();
        if self.now_ms.is_multiple_of(SECOND_MS.max(tick)) {
            let (room, now) = (&self.room, at(self.now_ms));
            let arrived = self.buyers.len() as u32;
            if self.waiting > 0 && arrived > 0 {
                self.judge.sample(&mut self.crowd, arrived, &self.buyers, |buyer| room.place(entry(buyer), now));
            }
        }
        if self.now_ms >= self.start_ms && self.now_ms.is_multiple_of(self.moments_apart_ms) {
            self.record();
        }
    }

    /// Begins or ends the operator's pause, if the world has one.
    fn pause(&mut self) {
        let Some(pause) = self.world.pause else { return };
        let from_ms = self.start_ms + u64::from(pause.at_s) * SECOND_MS;
        let paused = (from_ms..from_ms + u64::from(pause.for_s) * SECOND_MS).contains(&self.now_ms);
        if paused != self.paused {
            self.paused = paused;
            let mode = if paused { AdmissionMode::Paused } else { AdmissionMode::Running };
            let admission = boxoffice_domain::Admission { mode, ..self.room.admission() };
            self.inputs.push(RoomInput::Admit { admission, version: self.now_ms as i64 });
        }
    }

    /// Adds the time since the previous tick to the sums.
    fn measure(&mut self, passed_ms: u64) {
        if self.now_ms <= self.start_ms {
            return;
        }
        let (passed, seats) = (passed_ms as f64, u64::from(self.world.seats));
        self.sums.unsold += passed * (seats - self.sold) as f64;
        if self.paused || self.sold == seats {
            return;
        }
        self.judge.ran_ms += passed_ms;
        if self.waiting > 0 {
            let max_active = self.room.summary(at(self.now_ms)).max_active;
            self.sums.crowded += passed;
            self.sums.active += passed * self.active as f64;
            self.sums.max_active += passed * f64::from(max_active);
            self.sums.max_active_most = self.sums.max_active_most.max(u64::from(max_active));
            self.sums.idle += if self.sold + self.held < seats { passed } else { 0.0 };
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let buyer = self.buyers.len() as u32;
        let lane = self.crowd.lane();
        self.buyers.push(Buyer {
            came_ms: arrival.at_ms,
            promoted_ms: 0,
            place: 0,
            holds: 0,
            lane,
            is_bot: arrival.is_bot,
            fate: Fate::Joining,
        });
        self.fates.came += 1;
        self.inputs.push(RoomInput::Join { user: UserId(id(buyer)), entry: entry(buyer), lane: Lane(lane) });
        if let Some(patience_ms) = self.crowd.patience_ms(arrival.is_bot) {
            // Patience counts from the start of the sale.
            let from_ms = u64::from(arrival.at_ms).max(self.start_ms);
            self.plans.push(Reverse((from_ms + u64::from(patience_ms), buyer, Plan::GiveUp)));
        }
    }

    fn act(&mut self, at: u32, plan: Plan) {
        let buyer = &mut self.buyers[at as usize];
        match plan {
            Plan::GiveUp if buyer.fate == Fate::Waiting => self.inputs.push(RoomInput::Leave { entry: entry(at) }),
            Plan::GiveUp => {}
            Plan::Choose { until_ms } => {
                let is_first = buyer.holds == 0 && until_ms == 0;
                let think_ms = if is_first { u64::from(self.crowd.think_ms(buyer.is_bot)) } else { 0 };
                let until_ms = if is_first { self.now_ms + think_ms } else { until_ms };
                if is_first {
                    self.inputs.push(RoomInput::Seen { entries: vec![entry(at)] });
                }
                let free = u64::from(self.world.seats) - self.sold - self.held;
                let over_ms = u64::from(buyer.promoted_ms) + u64::from(self.world.turn_s) * SECOND_MS;
                if free > 0 && self.now_ms < over_ms {
                    buyer.holds = free.min(u64::from(self.world.seats_per_buyer)) as u16;
                    self.held += u64::from(buyer.holds);
                    // With seats chosen, the decision takes its time, within the turn.
                    let decides_ms = until_ms.max(self.now_ms + SECOND_MS).min(over_ms - 1);
                    self.plans.push(Reverse((decides_ms, at, Plan::Decide)));
                } else if self.now_ms + u64::from(RETRY_MS) < until_ms.min(over_ms) {
                    self.plans.push(Reverse((self.now_ms + u64::from(RETRY_MS), at, Plan::Choose { until_ms })));
                } else {
                    self.fates.found_nothing += 1;
                    self.shoppers -= 1;
                    buyer.fate = Fate::FoundNothing;
                    self.inputs.push(RoomInput::Leave { entry: entry(at) });
                }
            }
            Plan::Decide => self.decide(at),
        }
    }

    fn decide(&mut self, at_buyer: u32) {
        let seats = u64::from(self.world.seats);
        let buyer = &mut self.buyers[at_buyer as usize];
        let holds = u64::from(std::mem::take(&mut buyer.holds));
        self.held -= holds;
        self.shoppers -= 1;
        if self.crowd.buys(buyer.is_bot, self.sold as f64 / seats as f64) {
            buyer.fate = Fate::Bought;
            self.fates.bought += 1;
            self.sold += holds;
            if self.sold == seats {
                self.sold_out_ms = Some(self.now_ms);
            }
            self.inputs.push(RoomInput::Finish { user: UserId(id(at_buyer)), paid_at: at(self.now_ms) });
        } else {
            buyer.fate = Fate::Declined;
            self.inputs.push(RoomInput::Leave { entry: entry(at_buyer) });
        }
    }

    /// Applies this tick's inputs to the room.
    fn apply(&mut self) {
        let now = at(self.now_ms);
        if self.room.admission().heeds_health() && self.now_ms.is_multiple_of(SECOND_MS) {
            let health = Some(servers::health(self.shoppers, self.world.capacity));
            self.inputs.push(RoomInput::Report { instance: InstanceId(Uuid::from_u128(1)), health });
        }
        if self.room.awaits_reveal() {
            self.inputs.push(RoomInput::Reveal { seed: self.seed, beacon: None });
        }
        for input in std::mem::take(&mut self.inputs) {
            if let RoomOutput::Entered(entered) = self.room.apply(now, &input, &mut self.changes) {
                self.judge.joined(index(entered.place.entry), &entered.place);
            }
        }
        let stock = Stock { obtainable: u64::from(self.world.seats) - self.sold, linked: self.world.stock_linked };
        if self.room.is_due(now, stock) {
            self.room.apply(now, &RoomInput::Tick(stock), &mut self.changes);
        }
        for change in std::mem::take(&mut self.changes) {
            self.follow(&change);
        }
    }

    fn follow(&mut self, change: &RoomChange) {
        let at = index(change.entry);
        let buyer = &mut self.buyers[at as usize];
        match (change.was, change.status) {
            (None, QueueStatus::Waiting) => {
                buyer.fate = Fate::Waiting;
                self.waiting += 1;
            }
            (Some(QueueStatus::Waiting), QueueStatus::Active) => {
                buyer.fate = Fate::InTurn;
                buyer.promoted_ms = self.now_ms as u32;
                // A drawn buyer is served in the order of the draw, all others in the order of arrival.
                let drawn = u64::from(buyer.came_ms) < self.start_ms;
                buyer.place = if drawn { change.place as u32 } else { at + 1 };
                self.ran_at[at as usize] = self.judge.ran_ms as u32;
                self.served.push(at);
                self.waiting -= 1;
                self.active += 1;
                self.sums.active_most = self.sums.active_most.max(self.active);
                self.sums.promoted += if self.world.per_interval.is_some() { 1.0 } else { 0.0 };
                self.fates.had_a_turn += 1;
                if self.crowd.takes_the_turn(buyer.is_bot) {
                    let reaction_ms = self.crowd.reaction_ms(buyer.is_bot);
                    self.shoppers += 1;
                    self.plans.push(Reverse((self.now_ms + u64::from(reaction_ms), at, Plan::Choose { until_ms: 0 })));
                } else {
                    self.fates.no_shows += 1;
                    buyer.fate = Fate::NoShow;
                }
            }
            (Some(QueueStatus::Waiting), _) => {
                buyer.fate = Fate::GaveUp;
                self.fates.gave_up += 1;
                self.waiting -= 1;
            }
            (Some(QueueStatus::Active), _) => self.active -= 1,
            _ => {}
        }
    }

    fn record(&mut self) {
        let summary = self.room.summary(at(self.now_ms));
        self.timeline.push(Moment {
            at_s: (self.now_ms - self.start_ms) as f64 / 1e3,
            waiting: self.waiting,
            active: self.active,
            max_active: u64::from(summary.max_active),
            sold: self.sold,
            promoted: self.fates.had_a_turn,
            rate_per_s: summary.adaptive.rate_per_s.map(round),
        });
        if self.timeline.len() >= MOMENTS_MAX {
            let mut at = 0;
            self.timeline.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.moments_apart_ms *= 2;
        }
    }
}

fn at(ms: u64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms as i64)
}

fn id(buyer: u32) -> Uuid {
    Uuid::from_u128(u128::from(buyer) + 1)
}

fn entry(buyer: u32) -> QueueEntryId {
    QueueEntryId(id(buyer))
}

fn index(entry: QueueEntryId) -> u32 {
    (entry.0.as_u128() - 1) as u32
}

//! The room itself: what it holds, and what every part of it needs.

use super::adaptive::Adaptive;
use super::departures::Departures;
use super::entry::{QueueStatus, RoomChange, Stock};
use super::input::RoomTerms;
use super::lanes::Lanes;
use super::lengths::Lengths;
use super::lost::Lost;
use super::presale::PreSale;
use super::presence::Presence;
use super::stage::{Ends, Entry, Stage};
use super::turns::Turns;
use crate::admission::Pace;
use crate::draw::Hash32;
use crate::{Admission, ConcertId, QueueEntryId, Timestamp, UserId};
use chrono::TimeDelta;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The waiting room of one concert.
#[derive(Clone, Debug)]
pub struct Room {
    pub(super) concert: ConcertId,
    pub(super) terms: RoomTerms,
    /// What an operator set, with its version.
    pub(super) own: Option<(Admission, i64)>,
    pub(super) stock: Stock,
    pub(super) sold_out: bool,
    pub(super) entries: HashMap<QueueEntryId, Entry>,
    /// Each user's latest entry.
    pub(super) by_user: HashMap<UserId, QueueEntryId>,
    /// The entry that got each place, from 1; it may have ended since.
    pub(super) by_place: Vec<QueueEntryId>,
    pub(super) lanes: Lanes,
    pub(super) active: BTreeSet<(Timestamp, QueueEntryId)>,
    pub(super) ended: VecDeque<(Timestamp, QueueEntryId)>,
    pub(super) pace: Pace,
    pub(super) presence: Presence,
    pub(super) adaptive: Adaptive,
    pub(super) turns: Turns,
    pub(super) lengths: Lengths,
    pub(super) ends: Ends,
    pub(super) pre_sale: PreSale,
    /// Places up to here may be given out.
    pub(super) reserved: Option<u64>,
    pub(super) lost: Option<Lost>,
    /// The latest instant of an input.
    pub(super) latest_at: Timestamp,
    pub(super) departures: Departures,
    /// The ranks of the draw, ascending; empty until a place has to be found among them.
    pub(super) drawn_ranks: Vec<Hash32>,
}

impl Room {
    pub fn new(concert: ConcertId, terms: RoomTerms) -> Self {
        Self {
            concert,
            lanes: Lanes::new(&terms.lanes),
            terms,
            own: None,
            stock: Stock::default(),
            sold_out: false,
            entries: HashMap::new(),
            by_user: HashMap::new(),
            by_place: Vec::new(),
            active: BTreeSet::new(),
            ended: VecDeque::new(),
            pace: Pace::default(),
            presence: Presence::default(),
            adaptive: Adaptive::default(),
            turns: Turns::default(),
            lengths: Lengths::default(),
            ends: Ends::default(),
            pre_sale: PreSale::default(),
            reserved: None,
            lost: None,
            latest_at: Timestamp::UNIX_EPOCH,
            departures: Departures::default(),
            drawn_ranks: Vec::new(),
        }
    }

    pub(super) fn changed(&self, entry: QueueEntryId, was: Option<QueueStatus>, changes: &mut Vec<RoomChange>) {
        if let Some(kept) = self.entries.get(&entry) {
            let turn = kept.turn();
            changes.push(RoomChange {
                entry,
                user: kept.user,
                place: kept.place,
                lane: kept.lane,
                was,
                status: kept.status(),
                promoted_at: turn.map(|turn| turn.promoted_at),
                active_until: turn.map(|turn| turn.until),
            });
        }
    }

    pub(super) fn lives(&self, entry: QueueEntryId, now: Timestamp) -> bool {
        match self.entries.get(&entry).map(|kept| kept.stage) {
            Some(Stage::Waiting) => true,
            Some(Stage::Active(turn)) => turn.until > now,
            _ => false,
        }
    }

    /// Turns that are over by the clock and not written yet.
    pub(super) fn overdue(&self, now: Timestamp) -> impl Iterator<Item = QueueEntryId> + '_ {
        self.active.range(..=(now, QueueEntryId(uuid::Uuid::max()))).map(|(_, entry)| *entry)
    }

    pub(super) fn at_place(&self, place: u64) -> Option<QueueEntryId> {
        place.checked_sub(1).and_then(|at| self.by_place.get(at as usize)).copied()
    }

    /// The last place that was given out.
    pub fn last_place(&self) -> u64 {
        self.by_place.len() as u64
    }

    pub(super) fn active_ttl(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.terms.active_ttl_s))
    }

    pub(super) fn fill_places_to(&mut self, place: u64) {
        if self.last_place() < place {
            self.by_place.resize(place as usize, QueueEntryId(uuid::Uuid::nil()));
        }
    }
}

//! Those who come before the sale: they have no place until the list is closed and the draw is revealed.

use super::{Room, Stage};
use crate::draw::{self, Hash32};
use crate::{QueueEntryId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The draw of one concert, as anybody may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawView {
    pub commitment: Hash32,
    /// Places that were given out before the list was closed: the first one drawn gets the next.
    pub base: u64,
    /// The closed list, draw keys ascending; `None` before the start.
    pub keys: Option<Vec<Hash32>>,
    pub beacon: Option<String>,
    pub seed: Option<Hash32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PreSale {
    /// In the order of coming; who left may still be named.
    joined: Vec<QueueEntryId>,
    /// Who of them left before the list was closed.
    left: u64,
    closed: Option<Closed>,
    drawn: Option<Drawn>,
}

/// The list at the start of the sale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Closed {
    /// Places before theirs.
    base: u64,
    /// Ascending.
    keys: Vec<Hash32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Drawn {
    seed: Hash32,
    beacon: Option<String>,
}

/// Where a draw has put an entry, as far as the list is ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ranked {
    At(u64),
    /// On no list that was drawn.
    Absent,
    /// On the list, whose ranks nobody has asked for yet.
    Unknown,
}

impl PreSale {
    pub(super) fn join(&mut self, entry: QueueEntryId) {
        self.joined.push(entry);
    }

    pub(super) fn left(&mut self, _entry: QueueEntryId) {
        self.left += 1;
    }

    /// How many wait for the draw.
    pub(super) fn undrawn(&self) -> u64 {
        self.joined.len() as u64 - self.left.min(self.joined.len() as u64)
    }

    /// How many will need a place that is not set aside yet.
    pub(super) fn unplaced(&self) -> u64 {
        if self.closed.is_none() { self.undrawn() } else { 0 }
    }

    /// Whether anybody has come who is to be drawn, or could have.
    pub(super) fn has_begun(&self) -> bool {
        self.closed.is_some() || !self.joined.is_empty()
    }

    /// Those who wait for the draw, in the order of coming; some may have left.
    pub(super) fn joined(&self) -> &[QueueEntryId] {
        &self.joined
    }

    /// Places before those of the list.
    pub(super) fn base(&self) -> u64 {
        self.closed.as_ref().map_or(0, |closed| closed.base)
    }

    /// The places of the list.
    pub(super) fn places(&self) -> RangeInclusive<u64> {
        let listed = self.closed.as_ref().map_or(0, |closed| closed.keys.len() as u64);
        self.base() + 1..=self.base() + listed
    }

    /// Whether somebody is to be drawn before anybody goes.
    pub(super) fn is_to_be_drawn(&self) -> bool {
        self.drawn.is_none() && self.closed.as_ref().map_or(self.undrawn() > 0, |closed| !closed.keys.is_empty())
    }

    /// A list that is closed has to be drawn as it is: nobody on it may be forgotten.
    pub(super) fn is_closed_undrawn(&self) -> bool {
        self.is_to_be_drawn() && self.closed.is_some()
    }
}

impl Room {
    /// Whether somebody who comes now comes before the sale.
    pub(super) fn waits_for_draw(&self, now: Timestamp) -> bool {
        self.pre_sale.closed.is_none() && self.terms.commitment.is_some() && self.list_closes_at().is_some_and(|at| at > now)
    }

    /// When the list is closed: when the sale starts, or, in a room that was lost without a list, when people have had
    /// the time to come back for it. Without a sale there is no list; whoever is on one is drawn at once.
    fn list_closes_at(&self) -> Option<Timestamp> {
        let Some(start) = self.terms.sale_starts_at else { return (self.pre_sale.undrawn() > 0).then_some(Timestamp::MIN_UTC) };
        Some(self.lost.map_or(start, |lost| lost.resume_at.max(start)))
    }

    pub(super) fn is_list_to_close(&self, now: Timestamp) -> bool {
        self.pre_sale.closed.is_none() && self.terms.commitment.is_some() && self.list_closes_at().is_some_and(|at| at <= now)
    }

    /// At the start of the sale the list is closed: whoever comes from now on stands behind it.
    pub(super) fn close_pre_sale(&mut self, now: Timestamp) {
        if !self.is_list_to_close(now) {
            return;
        }
        let base = self.last_place();
        let live = |entry: &QueueEntryId| self.entries.get(entry).is_some_and(|kept| matches!(kept.stage, Stage::Waiting));
        self.pre_sale.joined = std::mem::take(&mut self.pre_sale.joined).into_iter().filter(live).collect();
        self.pre_sale.left = 0;
        let user = |entry: &QueueEntryId| self.entries.get(entry).map(|kept| draw::draw_key(kept.user, self.concert));
        let mut keys: Vec<_> = self.pre_sale.joined.iter().filter_map(user).collect();
        keys.sort_unstable();
        self.by_place.resize(self.by_place.len() + keys.len(), QueueEntryId(uuid::Uuid::nil()));
        self.pre_sale.closed = Some(Closed { base, keys });
    }

    /// Gives those on the closed list their places. A seed that is not the one committed to changes nothing.
    pub(super) fn reveal(&mut self, seed: &Hash32, beacon: Option<&str>) {
        let Some(Closed { base, .. }) = &self.pre_sale.closed else { return };
        if self.pre_sale.drawn.is_some() || self.terms.commitment != Some(draw::commitment(seed)) {
            return;
        }
        let (base, salt) = (*base, draw::salt(seed, beacon));
        let user = |entry: &QueueEntryId| self.entries.get(entry).map(|kept| draw::draw_key(kept.user, self.concert));
        let mut order: Vec<_> = std::mem::take(&mut self.pre_sale.joined)
            .into_iter()
            .filter_map(|entry| user(&entry).map(|key| (draw::rank(&salt, &key), entry)))
            .collect();
        order.sort_unstable();
        for (place, (_, entry)) in (base + 1..).zip(order) {
            let Some(kept) = self.entries.get_mut(&entry) else { continue };
            kept.place = place;
            self.by_place[place as usize - 1] = entry;
            if matches!(kept.stage, Stage::Waiting) {
                self.lanes.occupy(kept.lane, place);
            }
        }
        self.departures.disturbed();
        self.pre_sale.left = 0;
        self.pre_sale.drawn = Some(Drawn { seed: *seed, beacon: beacon.map(str::to_owned) });
    }

    /// Whether the seed is to be revealed now.
    pub fn awaits_reveal(&self) -> bool {
        self.pre_sale.closed.is_some() && self.pre_sale.drawn.is_none()
    }

    /// `None`: nothing is drawn here.
    pub fn draw(&self) -> Option<DrawView> {
        let commitment = self.terms.commitment.filter(|_| self.terms.sale_starts_at.is_some())?;
        let drawn = self.pre_sale.drawn.as_ref();
        Some(DrawView {
            commitment,
            base: self.pre_sale.base(),
            keys: self.pre_sale.closed.as_ref().map(|closed| closed.keys.clone()),
            beacon: drawn.and_then(|drawn| drawn.beacon.clone()),
            seed: drawn.map(|drawn| drawn.seed),
        })
    }

    pub(super) fn draw_brief(&self) -> Option<(Hash32, Option<Hash32>)> {
        let commitment = self.terms.commitment.filter(|_| self.terms.sale_starts_at.is_some())?;
        Some((commitment, self.pre_sale.drawn.as_ref().map(|drawn| drawn.seed)))
    }

    /// The place that the draw gave to somebody whose entry was lost.
    pub(super) fn drawn_place(&mut self, user: UserId) -> Option<u64> {
        let (closed, drawn) = (self.pre_sale.closed.as_ref()?, self.pre_sale.drawn.as_ref()?);
        let salt = draw::salt(&drawn.seed, drawn.beacon.as_deref());
        // All of them come back at once: what they are ordered by is computed once.
        if self.drawn_ranks.is_empty() {
            self.drawn_ranks = closed.keys.iter().map(|key| draw::rank(&salt, key)).collect();
            self.drawn_ranks.sort_unstable();
        }
        match self.ranked_place(user) {
            Ranked::At(place) => Some(place),
            Ranked::Absent | Ranked::Unknown => None,
        }
    }

    /// The same without ranking the list.
    pub(super) fn ranked_place(&self, user: UserId) -> Ranked {
        let (Some(closed), Some(drawn)) = (&self.pre_sale.closed, &self.pre_sale.drawn) else { return Ranked::Absent };
        let key = draw::draw_key(user, self.concert);
        if closed.keys.binary_search(&key).is_err() {
            return Ranked::Absent;
        }
        let salt = draw::salt(&drawn.seed, drawn.beacon.as_deref());
        match self.drawn_ranks.binary_search(&draw::rank(&salt, &key)) {
            Ok(before) => Ranked::At(closed.base + before as u64 + 1),
            Err(_) => Ranked::Unknown,
        }
    }

    /// Puts a draw back that was kept elsewhere, into a room that was lost.
    pub(super) fn restore_draw(&mut self, draw: DrawView) {
        let DrawView { base, keys: Some(keys), beacon, seed: Some(seed), .. } = draw else { return };
        self.fill_places_to(base + keys.len() as u64);
        self.pre_sale.closed = Some(Closed { base, keys });
        self.pre_sale.drawn = Some(Drawn { seed, beacon });
    }
}

//! Those who come before the sale: they have no place until the list is closed and the draw is revealed.

use super::{Room, RoomTerms, Stage};
use crate::draw::{self, Hash32};
use crate::{QueueEntryId, Timestamp};
use serde::{Deserialize, Serialize};

/// The draw of one concert, as anybody may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawView {
    pub commitment: Hash32,
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

    pub(super) fn is_to_close(&self, terms: &RoomTerms, now: Timestamp) -> bool {
        self.closed.is_none() && terms.commitment.is_some() && terms.sale_starts_at.is_some_and(|start| start <= now)
    }

    /// Places before those of the list.
    pub(super) fn base(&self) -> u64 {
        self.closed.as_ref().map_or(0, |closed| closed.base)
    }

    /// Closed, and not revealed yet.
    pub(super) fn is_to_be_drawn(&self) -> bool {
        self.drawn.is_none() && self.closed.as_ref().is_some_and(|closed| !closed.keys.is_empty())
    }
}

impl Room {
    /// Whether somebody who comes now comes before the sale.
    pub(super) fn waits_for_draw(&self, now: Timestamp) -> bool {
        self.pre_sale.closed.is_none() && self.terms.commitment.is_some() && self.terms.sale_starts_at.is_some_and(|start| start > now)
    }

    /// At the start of the sale the list is closed: whoever comes from now on stands behind it.
    pub(super) fn close_pre_sale(&mut self, now: Timestamp) {
        if !self.pre_sale.is_to_close(&self.terms, now) {
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
    pub(super) fn drawn_place(&self, user: crate::UserId) -> Option<u64> {
        let (closed, drawn) = (self.pre_sale.closed.as_ref()?, self.pre_sale.drawn.as_ref()?);
        let key = draw::draw_key(user, self.concert);
        closed.keys.binary_search(&key).ok()?;
        let salt = draw::salt(&drawn.seed, drawn.beacon.as_deref());
        let own = draw::rank(&salt, &key);
        let before = closed.keys.iter().filter(|other| draw::rank(&salt, other) < own).count() as u64;
        Some(closed.base + before + 1)
    }

    /// Puts a draw back that was kept elsewhere, into a room that was lost.
    pub(super) fn restore_draw(&mut self, keys: Vec<Hash32>, drawn: Option<(Hash32, Option<String>)>) {
        let to = self.by_place.len().max(keys.len());
        self.by_place.resize(to, QueueEntryId(uuid::Uuid::nil()));
        self.pre_sale.closed = Some(Closed { base: 0, keys });
        self.pre_sale.drawn = drawn.map(|(seed, beacon)| Drawn { seed, beacon });
    }
}

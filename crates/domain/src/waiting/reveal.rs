//! Closing the list of entries that come before the sale, and giving them the places of the draw.

use super::presale::{Closed, DrawView, Drawn, Ranked};
use super::room::Room;
use super::stage::Stage;
use crate::draw::{self, Hash32};
use crate::{QueueEntryId, Timestamp, UserId};

impl Room {
    /// Whether an entry that joins now comes before the sale.
    pub(super) fn waits_for_draw(&self, now: Timestamp) -> bool {
        self.pre_sale.closed.is_none() && self.terms.commitment.is_some() && self.list_closes_at().is_some_and(|at| at > now)
    }

    /// When the list is closed: when the sale starts, or, in a room that was lost without a list, once entries have had the
    /// time to come back. Without a sale there is no list; entries that are on one are drawn at once.
    fn list_closes_at(&self) -> Option<Timestamp> {
        let Some(start) = self.terms.sale_starts_at else { return (self.pre_sale.undrawn() > 0).then_some(Timestamp::MIN_UTC) };
        Some(self.lost.map_or(start, |lost| lost.resume_at.max(start)))
    }

    pub(super) fn is_list_to_close(&self, now: Timestamp) -> bool {
        self.pre_sale.closed.is_none() && self.terms.commitment.is_some() && self.list_closes_at().is_some_and(|at| at <= now)
    }

    /// Closes the list at the start of the sale: entries that join from now on stand behind it.
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

    /// Gives the entries on the closed list their places. A seed that was not committed to changes nothing.
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

    /// The place that the draw gave to a user whose entry was lost.
    pub(super) fn drawn_place(&mut self, user: UserId) -> Option<u64> {
        let (closed, drawn) = (self.pre_sale.closed.as_ref()?, self.pre_sale.drawn.as_ref()?);
        let salt = draw::salt(&drawn.seed, drawn.beacon.as_deref());
        // All of them come back at once: the ranks are computed once.
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

    /// Restores a draw that was kept in the mirror.
    pub(super) fn restore_draw(&mut self, draw: DrawView) {
        let DrawView { base, keys: Some(keys), beacon, seed: Some(seed), .. } = draw else { return };
        self.fill_places_to(base + keys.len() as u64);
        self.pre_sale.closed = Some(Closed { base, keys });
        self.pre_sale.drawn = Some(Drawn { seed, beacon });
    }
}

//! A whole room as one value: the snapshot with which a log begins, in the place of all inputs before it.
//!
//! What can be computed from the rest is left out and computed again: the lines, the entries in their turn, each user's
//! latest entry.

use super::adaptive::Adaptive;
use super::entry::Stock;
use super::input::RoomTerms;
use super::lanes::Lanes;
use super::lengths::Lengths;
use super::lost::Lost;
use super::presale::PreSale;
use super::presence::{Presence, PresenceState};
use super::room::Room;
use super::stage::{Ends, Entry, Stage};
use super::turns::Turns;
use crate::admission::Pace;
use crate::{Admission, ConcertId, QueueEntryId, Timestamp, UserId};
use chrono::serde::ts_microseconds;
use serde::{Deserialize, Serialize};

/// See the module's opening.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomState {
    concert: ConcertId,
    terms: RoomTerms,
    own: Option<(Admission, i64)>,
    stock: Stock,
    sold_out: bool,
    /// Ascending.
    entries: Vec<(QueueEntryId, Entry)>,
    /// Of users with several stays the latest, ascending.
    latest: Vec<(UserId, QueueEntryId)>,
    last_place: u64,
    pub(super) lanes: Lanes,
    pace: Pace,
    pub(super) presence: PresenceState,
    adaptive: Adaptive,
    pub(super) turns: Turns,
    ends: Ends,
    pre_sale: PreSale,
    reserved: Option<u64>,
    lost: Option<Lost>,
    #[serde(with = "ts_microseconds")]
    pub(super) latest_at: Timestamp,
    /// A state of version 1 ends before it.
    pub(super) lengths: Lengths,
}

impl Room {
    pub fn state(&self) -> RoomState {
        let mut entries: Vec<_> = self.entries.iter().map(|(entry, kept)| (*entry, *kept)).collect();
        entries.sort_unstable_by_key(|(entry, _)| *entry);
        let earlier = entries.iter().filter(|(entry, kept)| self.by_user.get(&kept.user).is_some_and(|latest| latest != entry));
        let mut latest: Vec<_> = earlier.filter_map(|(_, kept)| Some((kept.user, *self.by_user.get(&kept.user)?))).collect();
        latest.sort_unstable();
        latest.dedup();
        RoomState {
            concert: self.concert,
            terms: self.terms.clone(),
            own: self.own,
            stock: self.stock,
            sold_out: self.sold_out,
            entries,
            latest,
            last_place: self.last_place(),
            lanes: self.lanes.without_lines(),
            pace: self.pace.clone(),
            presence: self.presence.state(),
            adaptive: self.adaptive.clone(),
            turns: self.turns,
            ends: self.ends,
            pre_sale: self.pre_sale.clone(),
            reserved: self.reserved,
            lost: self.lost,
            latest_at: self.latest_at,
            lengths: self.lengths.clone(),
        }
    }

    /// How many entries it holds: what a state costs.
    pub fn size(&self) -> usize {
        self.entries.len()
    }
}

impl From<RoomState> for Room {
    fn from(state: RoomState) -> Self {
        let mut room = Self::new(state.concert, state.terms);
        room.own = state.own;
        room.stock = state.stock;
        room.sold_out = state.sold_out;
        room.lanes = state.lanes;
        room.pace = state.pace;
        room.presence = Presence::from_state(state.presence);
        room.adaptive = state.adaptive;
        room.turns = state.turns;
        room.ends = state.ends;
        room.pre_sale = state.pre_sale;
        room.reserved = state.reserved;
        room.lost = state.lost;
        room.latest_at = state.latest_at;
        let knows_turns = state.lengths != Lengths::default();
        room.lengths = state.lengths;
        room.fill_places_to(state.last_place);
        let mut ended = Vec::new();
        for (entry, kept) in state.entries {
            if let Some(at) = kept.place.checked_sub(1).and_then(|at| room.by_place.get_mut(at as usize)) {
                *at = entry;
            }
            match kept.stage {
                Stage::Waiting if kept.place > 0 => room.lanes.get_mut(kept.lane).line.occupy(kept.place),
                Stage::Waiting => {}
                Stage::Active(turn) => {
                    if !knows_turns {
                        room.lengths.began(&turn);
                    }
                    room.active.insert((turn.until, entry));
                }
                Stage::Ended { at, .. } => ended.push((at, entry)),
            }
            room.entries.insert(entry, kept);
            room.by_user.insert(kept.user, entry);
        }
        room.by_user.extend(state.latest);
        ended.sort_unstable();
        room.ended = ended.into();
        room
    }
}

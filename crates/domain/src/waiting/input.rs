//! The inputs of a waiting room, and its answers.
//!
//! Inputs are kept in logs and read again later, by newer versions too: a variant's fields never change, a new meaning
//! is a new variant at the end.

use super::adaptive::Health;
use super::entry::{Entered, Extended, Lane, Place, Stock, Ticked};
use crate::draw::Hash32;
use crate::ids::InstanceId;
use crate::{Admission, QueueEntryId, Timestamp, UserId};
use chrono::serde::{ts_microseconds, ts_microseconds_option};
use serde::{Deserialize, Serialize};

/// A line of its own, for users whose token names it, with its share of the promotions while entries wait in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneTerms {
    pub name: String,
    /// Of a thousand promotions.
    pub share: u16,
}

/// What a room obeys, beside its admission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomTerms {
    #[serde(with = "ts_microseconds_option")]
    pub sale_starts_at: Option<Timestamp>,
    /// Used as long as no operator has set another.
    pub admission: Admission,
    pub active_ttl_s: u32,
    /// How often a turn can be lengthened.
    pub extensions_max: u32,
    /// How long an entry in its turn may be without a connection, once it had one.
    pub grace_s: u32,
    /// The same while it waits.
    pub waiting_grace_s: u32,
    /// What the measured p99 is held against when admission adapts.
    pub p99_target_ms: u32,
    /// Beside the general lane, which has what they leave.
    pub lanes: Vec<LaneTerms>,
    /// Of the draw's seed; `None`: users who come before the sale go in the order of arrival.
    pub commitment: Option<Hash32>,
}

/// What a token claims of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceClaim {
    pub entry: QueueEntryId,
    pub user: UserId,
    pub lane: Lane,
    /// The ordinal in the concert's order; 0: given before the draw.
    pub place: u64,
    /// When its turn ends; `None` when the token was given while it waited.
    #[serde(with = "ts_microseconds_option")]
    pub active_until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RoomInput {
    Open(RoomTerms),
    /// Joins, or finds the user's place; `entry` names it if it is new.
    Join {
        user: UserId,
        entry: QueueEntryId,
        lane: Lane,
    },
    /// Ends an entry as left; one that has ended stays as it is.
    Leave {
        entry: QueueEntryId,
    },
    /// Ends the user's turn, if it is running and began before `paid_at`.
    Finish {
        user: UserId,
        #[serde(with = "ts_microseconds")]
        paid_at: Timestamp,
    },
    /// Lengthens a turn, whenever it ends: written by earlier versions.
    Extend {
        entry: QueueEntryId,
    },
    /// Ends what is over, and promotes the next entries.
    Tick(Stock),
    /// What an operator set; of two the one with the higher version counts.
    Admit {
        admission: Admission,
        version: i64,
    },
    /// These entries have a connection to this instance now; twice counts once. Ignored from an instance that has not
    /// appeared, or was given up since.
    Connect {
        instance: InstanceId,
        entries: Vec<QueueEntryId>,
    },
    /// These have none to it any more.
    Disconnect {
        instance: InstanceId,
        entries: Vec<QueueEntryId>,
    },
    /// Entries in their turn whose buyer came for it.
    Seen {
        entries: Vec<QueueEntryId>,
    },
    /// The instance lives; its health since its last report.
    Report {
        instance: InstanceId,
        health: Option<Health>,
    },
    /// Gives back an entry that the room has lost.
    Restore(PlaceClaim),
    /// Places up to here may be given out: of a room whose log can be lost, so that none is given out twice.
    Reserve {
        to: u64,
    },
    /// Draws the users who came before the sale.
    Reveal {
        seed: Hash32,
        beacon: Option<String>,
    },
    /// The instance lives and will report all its connections.
    Appear {
        instance: InstanceId,
    },
    /// Lengthens a turn that ends at `until`. One that ends at another time was lengthened since: it stays as it is.
    Lengthen {
        entry: QueueEntryId,
        #[serde(with = "ts_microseconds")]
        until: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum RoomOutput {
    Nothing,
    Entered(Entered),
    /// Draining: no new entry may join.
    Closed,
    /// Places must be reserved first, beyond this one.
    Unreserved(u64),
    /// `None`: not known, and not given back.
    Place(Option<Place>),
    Extended(Extended),
    Ticked(Ticked),
}

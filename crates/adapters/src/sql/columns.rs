//! How single values are written, the same in both databases: ids, JSON, and states as words.

use boxoffice_domain::{AdmissionMode, EntryKind, PointsKind, QueueStatus, ReservationStatus};
use diesel::deserialize::FromSqlRow;

/// An id as it is read from a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromSqlRow)]
pub(crate) struct Id<T>(pub(crate) T);

/// A value that is kept as JSON text.
#[derive(Clone, Debug, FromSqlRow)]
pub(crate) struct Json<T>(pub(crate) T);

/// A state as it is read from a column.
#[derive(Clone, Copy, Debug, FromSqlRow)]
pub(crate) struct State<T>(pub(crate) T);

impl<T: Word> State<T> {
    /// The state of a word.
    pub(crate) fn of(text: &[u8]) -> diesel::deserialize::Result<Self> {
        let found = T::WORDS.iter().find(|(_, word)| word.as_bytes() == text);
        found.map(|(value, _)| Self(*value)).ok_or_else(|| format!("unknown state `{}`", text.escape_ascii()).into())
    }
}

/// A state that is kept as a word.
pub(crate) trait Word: Copy + PartialEq + 'static {
    const WORDS: &'static [(Self, &'static str)];

    fn word(self) -> &'static str;
}

macro_rules! words {
    ($($type:ident { $($value:ident = $word:literal),* $(,)? })*) => {$(
        impl Word for $type {
            const WORDS: &'static [(Self, &'static str)] = &[$(($type::$value, $word)),*];

            fn word(self) -> &'static str {
                match self {
                    $($type::$value => $word,)*
                }
            }
        }
    )*};
}
words! {
    ReservationStatus { Held = "held", Confirmed = "confirmed", Released = "released", Expired = "expired", Cancelled = "cancelled" }
    EntryKind { Charge = "charge", Use = "use", Payment = "payment", Refund = "refund" }
    PointsKind { Grant = "grant", Spend = "spend", Restore = "restore", TakeBack = "take_back" }
    AdmissionMode { Running = "running", Paused = "paused", Draining = "draining" }
    QueueStatus {
        Waiting = "waiting", Active = "active", Done = "done", Expired = "expired", Left = "left",
        // How a waiting entry may be shown; never stored: the schema refuses them.
        PreSale = "pre_sale", SoldOut = "sold_out",
    }
}

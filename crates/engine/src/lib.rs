//! What runs between the edge and the stores: which command goes next, what is read from memory, and the background
//! work.
//!
//! # Layout
//!
//! * [`executors`]: one file a mechanism; `single_flight` stands before every one of them.
//! * `observed_ledger`: the ledger as everything here uses it, so that the seat view and the room see each commit.
//! * `turn_ends`: turns that end with a payment, and answers that wait for that.
//! * [`rooms`]: the waiting rooms, each a replica fed by a log.
//! * [`push`]: frames for the clients that wait.
//! * `catalogue` and `seat_view`: the catalogue and the seat maps, in memory, for reading.
//! * `store_time`: the store's time, wherever a clock is asked here.
//! * `peers`: the other instances on the same store; `seat_sync` keeps the seat maps fresh with what they commit.
//! * `tasks`: every long-lived task of an instance belongs to the supervisor, so that none ends in silence.
//! * `background`: promotion, expiry of turns and holds, pruning, and the outbox, whose events it publishes in order.
//!
//! Nothing here knows a web framework, a database or a broker.

mod admission_loop;
mod background;
mod catalogue;
mod coalesced;
pub mod executors;
mod hold_returns;
mod known_holds;
mod observed_ledger;
mod peers;
pub mod push;
mod relay;
pub mod rooms;
mod seat_sync;
mod seat_view;
mod server_health;
mod single_flight;
mod stats;
mod store_time;
mod sweep;
mod sync;
mod tasks;
#[cfg(test)]
mod testing;
mod turn_ends;

pub use background::{Background, BackgroundParts, BackgroundSettings};
pub use catalogue::Catalogue;
pub use executors::{Combining, CombiningSettings, Direct, Locked, Queued, QueuedParts, QueuedSettings};
pub use hold_returns::{HoldReturns, ReturnError};
pub use known_holds::KnownHolds;
pub use observed_ledger::ObservedLedger;
pub use peers::Peers;
pub use rooms::{RoomNews, Rooms, RoomsParts, RoomsSettings};
pub use seat_view::{Offer, Search, SearchError, SeatCounts, SeatInfo, SeatPreference, SeatSnapshot, SeatStatus, SeatView};
pub use server_health::ServerHealth;
pub use single_flight::SingleFlight;
pub use stats::{Gauge, Stats};
pub use store_time::StoreTime;
pub use tasks::{FailingTask, Supervisor, TaskFigures};
pub use turn_ends::{TurnEnd, TurnEndError, TurnEnds};

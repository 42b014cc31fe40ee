//! What runs between the edge and the stores: who goes next, what is read from memory, and the work in the background.
//!
//! # Layout
//!
//! * [`executors`]: one file a mechanism; [`in_flight`] stands before every one of them.
//! * [`Watched`]: the ledger as everything here uses it, so that each commit is seen by the seat view and the room.
//! * [`TurnEnds`]: turns that end with a payment, and answers that wait for that.
//! * [`rooms`]: the waiting rooms, each a replica that a log tells everything.
//! * [`push`]: telling those who wait how they stand.
//! * [`Shows`] and [`SeatView`]: the catalogue and the seat maps, in memory, for reading.
//! * [`StoreTime`]: what time it is there, wherever a clock is asked here.
//! * [`Siblings`]: the other instances on the same store; `seat_sync` keeps the seat maps fresh with what they commit.
//! * [`Supervisor`]: every long-lived task of an instance belongs to it, so that none ends in silence.
//! * [`Background`]: promotion, expiry of turns and holds, pruning, and the outbox: its events, in order, to whoever listens.
//!
//! Nothing here knows a web framework, a database or a broker.

mod admission_loop;
mod background;
mod coalesced;
pub mod executors;
mod fares;
mod hold_returns;
mod in_flight;
mod known_holds;
pub mod push;
mod relay;
pub mod rooms;
mod seat_sync;
mod seat_view;
mod shows;
mod siblings;
mod stats;
mod store_time;
mod sweep;
mod tasks;
#[cfg(test)]
mod testing;
mod turn_ends;
mod watched;

pub use background::{Background, BackgroundSettings, Parts};
pub use executors::{Combining, CombiningSettings, Direct, Locked, Queued, QueuedParts, QueuedSettings};
pub use fares::Fares;
pub use hold_returns::{HoldReturns, NotReturned};
pub use in_flight::SingleFlight;
pub use known_holds::KnownHolds;
pub use rooms::{RoomNews, Rooms, RoomsParts, RoomsSettings};
pub use seat_view::{Offer, Search, SearchError, SeatCounts, SeatInfo, SeatSnapshot, SeatStatus, SeatView, Wish};
pub use shows::Shows;
pub use siblings::Siblings;
pub use stats::{Gauge, Stats};
pub use store_time::StoreTime;
pub use tasks::{FailingTask, Supervisor, TaskFigures};
pub use turn_ends::{NotEnded, TurnEnd, TurnEnds};
pub use watched::Watched;

//! What runs between the edge and the stores: who goes next, what is read from memory, and the work in the background.
//!
//! # Layout
//!
//! * [`executors`]: one file a mechanism; [`in_flight`] stands before every one of them.
//! * [`Watched`]: the ledger as everything here uses it, so that each commit is seen by the seat view and the room.
//! * [`Shows`] and [`SeatView`]: the catalogue and the seat maps, in memory, for reading.
//! * [`Background`]: promotion, expiry of turns and holds, the outbox, pruning.
//!
//! Nothing here knows a web framework, a database or a broker.

mod admission_loop;
mod background;
pub mod executors;
mod in_flight;
mod relay;
mod seat_view;
mod shows;
mod stats;
mod sweep;
#[cfg(test)]
mod testing;
mod watched;

pub use background::{Background, BackgroundSettings, Parts};
pub use executors::{Combining, CombiningSettings, Direct, Locked};
pub use in_flight::SingleFlight;
pub use seat_view::{SeatCounts, SeatInfo, SeatSnapshot, SeatStatus, SeatView};
pub use shows::Shows;
pub use stats::{Gauge, Stats};
pub use watched::{RoomTeller, Watched};

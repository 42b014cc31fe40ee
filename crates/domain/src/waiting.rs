//! The waiting room of one concert as a state machine: everything it depends on comes as a [`RoomInput`], the time
//! included. Replicas that apply the same inputs in the same order have the same room. Nothing here reads a clock or draws.
//!
//! Invariant (I4): at no instant are more than `max_active` entries able to start a hold, and no window of the rate's
//! length sees more promotions than its count. Expiry takes effect at its instant: an active entry past its end reads as
//! expired before a tick has written it.
//!
//! Order is arrival within each lane. Users who come before the sale are drawn when it starts ([`crate::draw`]), if there is
//! a commitment. A place is a fixed ordinal from 1 over all lanes; joining again while the entry lives returns it unmoved.
//!
//! * `room`: what the room holds. `apply`, `tick`: what each input does to it. `course`, `stage`: one entry, from waiting to
//!   its end. `input`, `entry`, `summary`: what goes in and comes out. `limits`: bounds that several parts keep.
//! * `lanes`: which entry is promoted next, among several lines.
//! * `presale`, `reveal`: the list of those who come before the sale, and its draw.
//! * `presence`: which entries are connected, and since when the others are not.
//! * `forecast`, `lengths`, `turns`: how long an entry will wait, how long turns last, and what else turns have shown.
//! * `departures`: which entries left the line, for clients that count those ahead of them.
//! * [`adaptive`]: the rate that the servers can sustain.
//! * `look`: what a room and its entries read as at an instant; it changes nothing.
//! * `lost`, `loss`: restoring what a room has lost.
//! * `set_back`: a clock that is set back.
//! * `state`: the whole room as one value, with which a log begins.

pub mod adaptive;
mod apply;
mod course;
mod departures;
mod entry;
pub mod forecast;
mod input;
mod lanes;
mod lengths;
mod limits;
mod look;
mod loss;
mod lost;
mod presale;
mod presence;
mod reveal;
mod room;
mod set_back;
mod stage;
mod state;
mod summary;
#[cfg(test)]
mod tests;
mod tick;
mod turns;

pub use adaptive::{AdaptiveState, Health};
pub use departures::Departures;
pub use entry::*;
pub use input::*;
pub use lanes::{LANES_MAX, SHARES};
pub use lengths::Lengths;
pub use limits::*;
pub use lost::{ActivePlace, RoomMark};
pub use presale::DrawView;
pub use presence::{INSTANCE_LOST_S, INSTANCE_REPORTS_S};
pub use room::Room;
pub use set_back::{SET_BACK_S, is_set_back, log_time};
pub use state::RoomState;
pub use summary::RoomSummary;
pub use turns::Turns;

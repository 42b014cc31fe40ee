//! The seat maps in memory, for reading and for choosing: the ledger alone decides.
//!
//! A date is loaded when it is first asked for. From then on every commit of this process is applied at once
//! ([`SeatView::apply`]). Of two changes of a seat the higher version is newer, so they may arrive in any order, also
//! while the date is being loaded. Rounds bring what other instances commit ([`SeatView::catch_up`]): `seat_sync` makes
//! them now and then, and a caller that needs to know makes one at once. Expiry needs no write: a read at or after
//! `held_until` sees the seat free, and the view's version has moved.
//!
//! *Cost.* A read takes one short mutex a date and no store; a commit touches its seats alone. Maps are built beside
//! that mutex, big ones off the threads that serve. However many callers want a load or a round, one serves all that
//! asked before it began.
//!
//! * [`view`]: loading, reading and catching up. [`seats`]: what readers get.
//! * [`map`]: the seats of a date. [`layout`], [`bits`]: their order, and where free ones begin.
//! * [`best`]: what is offered for a preference. [`claims`]: what is on offer. [`search`]: from the first offer to a seat,
//!   or to none.

mod best;
mod bits;
mod claims;
mod layout;
mod map;
mod search;
mod seats;
mod view;

pub use best::SeatPreference;
pub use search::{Offer, Search, SearchError};
pub use seats::{SeatCounts, SeatInfo, SeatSnapshot, SeatStatus};
pub use view::SeatView;

#[cfg(test)]
mod tests;

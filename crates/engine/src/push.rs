//! Pushing the state of waiting rooms to their listeners, at a cost that does not grow with what there is to push.
//!
//! A listener gets its own `queue` frame first: the queue object, with how many entries were `admitted` from its lane
//! so far. Then it gets frames that are the same for all of its class, rendered once: how many were admitted, and which
//! places left without a turn. From these each client computes its own number:
//!
//! > `ahead` = its last value − growth of `admitted` − those of `left` that are smaller than one's place
//!
//! *Invariant.* After every frame that is exactly what the room says of the instant at which the frame was made. What a
//! frame says is read from the replica in one look, together with what departed since the look before. An own frame in
//! between may already count departures that the next shared frame will name; another own frame then takes the place of
//! that shared frame. Some changes have no term in the formula: another replica, places given back, a draw. Then all
//! listeners concerned get their own frame again.
//!
//! *Classes.* The next [`NEAR`] places of a lane get a shared frame every second. Those behind get one every five
//! seconds, which then covers the five. What concerns one entry alone (`active`, `expired`) is sent at once, and modes
//! to every entry that waits. `seq` counts without a gap; a `queue` frame begins the count anew. Counts begin at
//! random, so that the number which a client resumes with names one stream of one instance, or nothing.
//!
//! *Failure.* If this instance was too slow for the news, or got another replica, all listeners get own frames, in
//! steps of a few hundred. A listener that does not take its frames is ended ([`QUEUED_MAX`]). While the log is away
//! there are no ticks and no frames: the last frames stand.
//!
//! *Locks*, in this order: the table of channels, one channel, the replica, one listener. One task hands frames over,
//! so each listener gets them in order. The first frames are queued before any other frame can be.

mod channel;
mod frame;
mod hub;
mod listener;
mod pace;
mod sender;
mod stream;

pub use frame::Form;
pub use hub::{Hub, LISTENERS_MAX, ListenError, Subscription};
pub use listener::{End, Listener, Next, QUEUED_MAX};
pub use pace::{NEAR, Pace};
pub use sender::OwnFrames;

#[cfg(test)]
mod tests;

//! Keeps the seat view fresh with what other instances commit. Published changes are received at once. The store is
//! read again if instances do not publish, or if a message may have been missed.
//!
//! Reading again asks the store for the seats that changed since a mark, for the loaded dates alone. The mark moves on
//! only if no date was loaded meanwhile: such a date may have been read before what the answer covers. The first mark
//! is taken before anything is served, and all maps loaded by then are loaded again.
//!
//! *Cost.* One statement every five seconds if instances publish their commits, every half a second otherwise; none on
//! a store that only this process writes. Dates without readers are unloaded, and so no longer read.
//!
//! *Failure.* A round that fails leaves the mark where it is, so the next one brings everything.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_ports::{FanoutMessage, Source};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::SeatView;
use crate::peers::Peers;

/// After how long without a reader a date is unloaded.
const UNLOAD_AFTER: Duration = Duration::from_secs(60);
/// The pause between two rounds, however often something was missed.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause before listening is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// See the module's opening.
pub(crate) struct SeatSync {
    seats: Arc<SeatView>,
    peers: Arc<Peers>,
    /// A message may have been missed.
    missed: Notify,
}

impl SeatSync {
    pub(crate) fn new(seats: Arc<SeatView>, peers: Arc<Peers>) -> Arc<Self> {
        Arc::new(Self { seats, peers, missed: Notify::new() })
    }

    /// Applies what changed since the last round. False for a store that only this process writes.
    pub(crate) async fn round(&self) -> Result<bool, Source> {
        self.seats.unload_unread(UNLOAD_AFTER);
        Ok(self.seats.catch_up().await?)
    }

    /// Reads again: now and then, and whenever a message may have been missed.
    pub(crate) async fn read_again(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            match self.round().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(error, "seat changes of other instances could not be read; it is tried again"),
            }
            let read = Instant::now();
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = stopped.changed() => return,
            }
            let is_due = async {
                // Asked again and again, because it is shorter while publishing fails.
                while read.elapsed() < self.peers.read_again_after() {
                    sleep(PAUSE).await;
                }
            };
            tokio::select! {
                () = is_due => {}
                () = self.missed.notified() => {}
                _ = stopped.changed() => return,
            }
        }
    }

    /// Applies what other instances publish, if there is a fan-out.
    pub(crate) async fn listen(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            let listening = tokio::select! {
                listening = self.peers.listen() => listening,
                _ = stopped.changed() => return,
            };
            match listening {
                None => return,
                Some(Ok(mut listener)) => {
                    // Messages from before are missed.
                    self.missed.notify_one();
                    loop {
                        tokio::select! {
                            message = listener.next() => match message {
                                FanoutMessage::Seats(changes) => self.seats.apply(&changes),
                                FanoutMessage::Gap => self.missed.notify_one(),
                            },
                            _ = stopped.changed() => return,
                        }
                    }
                }
                Some(Err(error)) => tracing::warn!(error, "messages of other instances cannot be received; it is tried again"),
            }
            tokio::select! {
                () = sleep(LISTEN_AGAIN) => {}
                _ = stopped.changed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;

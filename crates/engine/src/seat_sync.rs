//! Keeps the seat view fresh with what other instances commit: heard at once where they tell it, and read again where
//! nobody does, or where something may have been missed.
//!
//! Reading again asks the store for the seats that changed since a mark, for the loaded dates alone. The mark moves on
//! only when no date came in meanwhile: one that did may have been read before what the answer covers. The first mark is
//! taken before anything is served, and whatever was loaded by then is loaded again.
//!
//! *Cost.* One statement every five seconds where instances tell one another, every half a second otherwise; none on a
//! store that only this process writes. Dates that nobody asks for are unloaded, and so no longer read.
//!
//! *Failure.* A round that fails leaves the mark where it is, so the next one brings everything.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_ports::{Heard, Source};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::SeatView;
use crate::peers::Siblings;

/// After how long without a reader a date is unloaded.
const UNLOAD_AFTER: Duration = Duration::from_secs(60);
/// The pause between two rounds, however often something was missed.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause before listening is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// See the module's opening.
pub(crate) struct SeatSync {
    seats: Arc<SeatView>,
    siblings: Arc<Siblings>,
    /// Something may have been missed.
    missed: Notify,
}

impl SeatSync {
    pub(crate) fn new(seats: Arc<SeatView>, siblings: Arc<Siblings>) -> Arc<Self> {
        Arc::new(Self { seats, siblings, missed: Notify::new() })
    }

    /// Applies what changed since the last round. False of a store that only this process writes.
    pub(crate) async fn round(&self) -> Result<bool, Source> {
        self.seats.unload_unread(UNLOAD_AFTER);
        Ok(self.seats.catch_up().await?)
    }

    /// Reads again: now and then, and whenever something was missed.
    pub(crate) async fn read_again(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            match self.round().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(error, "what other instances changed could not be read"),
            }
            let read = Instant::now();
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = stopped.changed() => return,
            }
            let is_due = async {
                // Looked at again and again, because it is shorter while nothing can be told.
                while read.elapsed() < self.siblings.read_again_after() {
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

    /// Hears what other instances tell, for as long as there is somebody to listen to.
    pub(crate) async fn listen(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            let listening = tokio::select! {
                listening = self.siblings.listen() => listening,
                _ = stopped.changed() => return,
            };
            match listening {
                None => return,
                Some(Ok(mut listener)) => {
                    // What was told before is not heard any more.
                    self.missed.notify_one();
                    loop {
                        tokio::select! {
                            heard = listener.heard() => match heard {
                                Heard::Seats(changes) => self.seats.apply(&changes),
                                Heard::Gap => self.missed.notify_one(),
                            },
                            _ = stopped.changed() => return,
                        }
                    }
                }
                Some(Err(error)) => tracing::warn!(error, "other instances cannot be heard"),
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

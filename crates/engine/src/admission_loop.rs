//! Opening rooms for what is on sale, and letting people in: every tick, each concert's room is told how many seats
//! could still be had and promotes whom it may. A room's tick is atomic over instances, so several may run this loop.

use std::sync::Arc;

use boxoffice_domain::{ConcertId, Stock};
use boxoffice_ports::{Clock, RoomTerms, Source, WaitingRoom};

use crate::{SeatView, Shows, Stats};

pub(crate) struct AdmissionLoop {
    pub(crate) room: Arc<dyn WaitingRoom>,
    pub(crate) shows: Arc<Shows>,
    pub(crate) seats: Arc<SeatView>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) stock_linked: bool,
}

impl AdmissionLoop {
    /// Brings the catalogue up to date, with it the seat maps that an import changed, and opens rooms.
    pub(crate) async fn refresh(&self) -> Result<(), Source> {
        for date in self.shows.refresh().await? {
            self.seats.reload(date).await?;
        }
        for concert in self.shows.concerts().iter() {
            let (concert, sale_starts_at, admission) = (concert.concert.id, concert.sale_starts_at, concert.admission);
            self.room.open(RoomTerms { concert, sale_starts_at, admission }).await?;
        }
        Ok(())
    }

    pub(crate) async fn tick(&self) -> Result<(), Source> {
        for concert in self.shows.concerts().iter() {
            let id = concert.concert.id;
            let stock = Stock { obtainable: self.obtainable(id).await?, linked: self.stock_linked };
            let ticked = self.room.tick(id, stock).await?;
            self.stats.promoted.add(ticked.promoted);
        }
        Ok(())
    }

    /// Seats available or in a live hold, on dates whose booking has not closed.
    async fn obtainable(&self, concert: ConcertId) -> Result<u64, Source> {
        let mut obtainable = 0;
        for date in self.shows.open_dates(concert, self.clock.now()) {
            let counts = self.seats.counts(date).await?;
            obtainable += counts.available + counts.held;
        }
        Ok(obtainable)
    }
}

//! The outbox, emptied in order: the waiting room is told of every payment (again), then the rows are deleted.
//!
//! A row is deleted only after everybody was told, so a crash at any point tells again and loses nothing; a failure
//! leaves the shard's rows, in order, for the next round.

use std::sync::Arc;

use boxoffice_domain::Event;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_ports::{Outbox, Source};

use crate::{RoomTeller, Stats};

/// Rows taken from a shard in one step.
const STEP: u32 = 4_000;

pub(crate) struct Relay {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) teller: Arc<RoomTeller>,
    pub(crate) stats: Arc<Stats>,
}

impl Relay {
    /// Goes over all shards until each was found with less than a full step.
    pub(crate) async fn round(&self) -> Result<(), Source> {
        for shard in 0..OUTBOX_SHARDS {
            while self.step(shard).await? >= STEP as usize {}
        }
        Ok(())
    }

    async fn step(&self, shard: u32) -> Result<usize, Source> {
        let rows = self.outbox.unsent(shard, STEP).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        for row in &rows {
            if let Event::PaymentPaid { user, concert, .. } = &row.event {
                self.teller.paid(*user, *concert).await?;
            }
        }
        let count = rows.len();
        self.outbox.sent(shard, rows.into_iter().map(|row| row.id).collect()).await?;
        self.stats.relayed_events.add(count as u64);
        Ok(count)
    }
}

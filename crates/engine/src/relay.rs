//! The outbox, emptied in order: the waiting room is told of every payment (again), then the rows are deleted.
//!
//! A row is deleted only after everybody was told, so a crash at any point tells again and loses nothing; a failure
//! leaves the shard's rows, in order, for the next round, and the other shards to theirs. Instances begin at different
//! shards, so that they seldom do the same work; where they do, telling twice and deleting twice harm nobody.

use std::sync::Arc;

use boxoffice_domain::Event;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_ports::{Outbox, Source};
use rand::Rng;

use crate::{RoomTeller, Stats};

/// Rows taken from a shard in one step.
const STEP: u32 = 4_000;

pub(crate) struct Relay {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) teller: Arc<RoomTeller>,
    pub(crate) stats: Arc<Stats>,
}

impl Relay {
    /// Goes over all shards until each was found with less than a full step. Fails as the first shard that failed.
    pub(crate) async fn round(&self) -> Result<(), Source> {
        let first = rand::rng().random_range(0..OUTBOX_SHARDS);
        let mut failed = Ok(());
        for shard in (0..OUTBOX_SHARDS).map(|n| (first + n) % OUTBOX_SHARDS) {
            if let Err(error) = self.shard(shard).await {
                failed = failed.and(Err(error));
            }
        }
        failed
    }

    async fn shard(&self, shard: u32) -> Result<(), Source> {
        while self.step(shard).await? >= STEP as usize {}
        Ok(())
    }

    async fn step(&self, shard: u32) -> Result<usize, Source> {
        let rows = self.outbox.unsent(shard, STEP).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        for row in &rows {
            if let Event::PaymentPaid { user, concert, .. } = &row.event {
                self.teller.paid(*user, *concert, row.occurred_at).await?;
            }
        }
        let count = rows.len();
        self.outbox.sent(shard, rows.into_iter().map(|row| row.id).collect()).await?;
        self.stats.relayed_events.add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, at, id};
    use boxoffice_ports::{MockOutbox, MockQueries, MockWaitingRoom, OutboxRow, RoomError};
    use std::sync::Mutex;

    fn row(id_in_shard: i64, event: Event) -> OutboxRow {
        OutboxRow { shard: 3, id: id_in_shard, event, occurred_at: at(0) }
    }

    fn rows() -> Vec<OutboxRow> {
        let (user, concert) = (id(5), id(CONCERT));
        vec![
            row(1, Event::WalletCharged { user, entry: id(1), amount: 5, balance: 5 }),
            row(2, Event::PaymentPaid { payment: id(1), reservation: id(2), user, concert, amount: 5, points_spent: 0, points_granted: 0 }),
        ]
    }

    fn relay(finish: Result<(), RoomError>) -> (Relay, Arc<Mutex<Vec<i64>>>) {
        let (mut outbox, mut queries, mut room) = (MockOutbox::new(), MockQueries::new(), MockWaitingRoom::new());
        outbox.expect_unsent().returning(|shard, _| Ok(if shard == 3 { rows() } else { Vec::new() }));
        let deleted = Arc::<Mutex<Vec<i64>>>::default();
        let seen = deleted.clone();
        outbox.expect_sent().returning(move |shard, ids| {
            assert_eq!(shard, 3);
            seen.lock().unwrap().extend(ids);
            Ok(())
        });
        queries.expect_live_holds().returning(|_, _| Ok(Vec::new()));
        let finish = Mutex::new(Some(finish));
        room.expect_finish().once().returning(move |_, _, _| finish.lock().unwrap().take().unwrap());
        let teller = RoomTeller::new(Arc::new(room), Arc::new(queries));
        (Relay { outbox: Arc::new(outbox), teller, stats: Arc::default() }, deleted)
    }

    #[tokio::test]
    async fn rows_are_deleted_once_the_room_was_told() {
        let (relay, deleted) = relay(Ok(()));
        relay.round().await.unwrap();
        assert_eq!((deleted.lock().unwrap().as_slice(), relay.stats.relayed_events.get()), ([1, 2].as_slice(), 2));
    }

    #[tokio::test]
    async fn every_shard_is_emptied() {
        let (mut outbox, queries, room) = (MockOutbox::new(), MockQueries::new(), MockWaitingRoom::new());
        let charged = || Event::WalletCharged { user: id(5), entry: id(1), amount: 5, balance: 5 };
        let left: Arc<Vec<_>> = Arc::new((0..OUTBOX_SHARDS).map(|_| Mutex::new(i64::from(STEP) + 1)).collect());
        let there = left.clone();
        outbox.expect_unsent().returning(move |shard, limit| {
            let rows = (*there[shard as usize].lock().unwrap()).min(i64::from(limit));
            Ok((0..rows).map(|at| OutboxRow { shard, ..row(at, charged()) }).collect())
        });
        let sent = left.clone();
        outbox.expect_sent().returning(move |shard, ids| {
            *sent[shard as usize].lock().unwrap() -= ids.len() as i64;
            Ok(())
        });
        let teller = RoomTeller::new(Arc::new(room), Arc::new(queries));
        let relay = Relay { outbox: Arc::new(outbox), teller, stats: Arc::default() };
        relay.round().await.unwrap();
        assert!(left.iter().all(|left| *left.lock().unwrap() == 0), "more than one step each, and nothing is left");
    }

    #[tokio::test]
    async fn a_shard_that_fails_keeps_no_other_back() {
        let (mut outbox, queries, room) = (MockOutbox::new(), MockQueries::new(), MockWaitingRoom::new());
        let asked = Arc::<Mutex<Vec<u32>>>::default();
        let seen = asked.clone();
        outbox.expect_unsent().returning(move |shard, _| {
            seen.lock().unwrap().push(shard);
            if shard % 2 == 0 { Err(boxoffice_ports::StoreError::Unavailable("gone".into())) } else { Ok(Vec::new()) }
        });
        let teller = RoomTeller::new(Arc::new(room), Arc::new(queries));
        assert!(Relay { outbox: Arc::new(outbox), teller, stats: Arc::default() }.round().await.is_err());
        asked.lock().unwrap().sort_unstable();
        assert_eq!(*asked.lock().unwrap(), (0..OUTBOX_SHARDS).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn rows_stay_while_the_room_cannot_be_told() {
        let (relay, deleted) = relay(Err(RoomError::Unavailable("gone".into())));
        assert!(relay.round().await.is_err());
        assert!(deleted.lock().unwrap().is_empty());
    }
}

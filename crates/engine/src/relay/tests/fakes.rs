//! A scripted outbox and a scripted sink.

use super::*;
use crate::testing::{CONCERT, at, id};
use async_trait::async_trait;
use boxoffice_domain::Event;
use boxoffice_ports::{StoreError, Unsent};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32};

/// The tables of one outbox, claims included.
#[derive(Default)]
pub(super) struct FakeOutbox {
    pub(super) rows: Mutex<BTreeMap<(u32, i64), OutboxRow>>,
    pub(super) aside: Mutex<BTreeMap<(u32, i64), OutboxRow>>,
    pub(super) owners: Mutex<BTreeMap<u32, (InstanceId, Instant)>>,
    /// Whether it answers claims, and deletions.
    pub(super) claims: AtomicBool,
    pub(super) deletes: AtomicBool,
    /// Shards that cannot be read.
    pub(super) unread: Mutex<Vec<u32>>,
    /// What was done, in order.
    pub(super) steps: Arc<Mutex<Vec<String>>>,
}

impl FakeOutbox {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { claims: AtomicBool::new(true), deletes: AtomicBool::new(true), ..Self::default() })
    }

    pub(super) fn put(&self, shard: u32, ids: impl IntoIterator<Item = i64>) {
        let row = |id| OutboxRow { shard, id, event: charged(), occurred_at: at(0) };
        self.rows.lock().unwrap().extend(ids.into_iter().map(|id| ((shard, id), row(id))));
    }

    pub(super) fn left(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    /// Payments, each of another user, named by the id.
    pub(super) fn put_paid(&self, shard: u32, ids: impl IntoIterator<Item = i64>) {
        let row = |id: i64| OutboxRow { shard, id, event: paid(id), occurred_at: at(0) };
        self.rows.lock().unwrap().extend(ids.into_iter().map(|id| ((shard, id), row(id))));
    }

    pub(super) fn left_set_aside(&self) -> usize {
        self.aside.lock().unwrap().len()
    }

    pub(super) fn owned(&self, by: InstanceId) -> usize {
        self.owners.lock().unwrap().values().filter(|(owner, until)| *owner == by && *until > Instant::now()).count()
    }

    pub(super) fn give_all(&self, to: InstanceId) {
        let until = Instant::now() + LEASE;
        self.owners.lock().unwrap().extend((0..OUTBOX_SHARDS).map(|shard| (shard, (to, until))));
    }
}

fn charged() -> Event {
    Event::WalletCharged { user: id(5), entry: id(1), amount: 5, balance: 5 }
}

fn paid(n: i64) -> Event {
    let (user, concert) = (id(n as u128), id(CONCERT));
    let (payment, reservation) = (id(n as u128), id(n as u128));
    Event::PaymentPaid { payment, reservation, user, concert, amount: 5, points_spent: 0, points_granted: 0, last_hold: true }
}

fn gone() -> StoreError {
    StoreError::Unavailable("gone".into())
}

#[async_trait]
impl Outbox for FakeOutbox {
    /// Half of the shards at most, once another relay lives.
    async fn claim(&self, relay: InstanceId, lease: Duration) -> Result<Vec<u32>, StoreError> {
        if !self.claims.load(Ordering::SeqCst) {
            return Err(gone());
        }
        let (now, mut owners) = (Instant::now(), self.owners.lock().unwrap());
        owners.retain(|_, (_, until)| *until > now);
        let alone = owners.values().all(|(owner, _)| *owner == relay);
        let share = if alone && owners.len() < OUTBOX_SHARDS as usize { OUTBOX_SHARDS } else { OUTBOX_SHARDS / 2 };
        let mut mine = Vec::new();
        for shard in 0..OUTBOX_SHARDS {
            let owner = owners.get(&shard).map(|(owner, _)| *owner);
            if owner.is_none_or(|owner| owner == relay) {
                if mine.len() < share as usize {
                    owners.insert(shard, (relay, now + lease));
                    mine.push(shard);
                } else {
                    owners.remove(&shard);
                }
            }
        }
        Ok(mine)
    }

    async fn release(&self, relay: InstanceId) -> Result<(), StoreError> {
        self.owners.lock().unwrap().retain(|_, (owner, _)| *owner != relay);
        Ok(())
    }

    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        if self.unread.lock().unwrap().contains(&shard) {
            return Err(gone());
        }
        let rows = self.rows.lock().unwrap();
        Ok(rows.range((shard, i64::MIN)..=(shard, i64::MAX)).take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        if !self.deletes.load(Ordering::SeqCst) {
            return Err(gone());
        }
        self.steps.lock().unwrap().push(format!("delete {ids:?}"));
        let mut rows = self.rows.lock().unwrap();
        ids.into_iter().for_each(|id| drop(rows.remove(&(shard, id))));
        Ok(())
    }

    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        self.steps.lock().unwrap().push(format!("set aside {ids:?}"));
        let (mut rows, mut aside) = (self.rows.lock().unwrap(), self.aside.lock().unwrap());
        aside.extend(ids.into_iter().filter_map(|id| Some(((shard, id), rows.remove(&(shard, id))?))));
        Ok(())
    }

    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let aside = self.aside.lock().unwrap();
        Ok(aside.range((shard, i64::MIN)..=(shard, i64::MAX)).take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        self.steps.lock().unwrap().push(format!("taken {ids:?}"));
        let mut aside = self.aside.lock().unwrap();
        ids.into_iter().for_each(|id| drop(aside.remove(&(shard, id))));
        Ok(())
    }

    async fn backlog(&self) -> Result<Unsent, StoreError> {
        Ok(Unsent { count: self.left() as u64, oldest: Duration::from_millis(1_234) })
    }
}

/// Takes what it is given, after so long, unless it is to fail.
#[derive(Default)]
pub(super) struct FakeSink {
    pub(super) published: Mutex<Vec<(u32, i64)>>,
    pub(super) calls: AtomicU32,
    /// What becomes of the next publications; then they work.
    pub(super) failures: Mutex<VecDeque<Fails>>,
    pub(super) takes: Mutex<Duration>,
    pub(super) at_once: AtomicU32,
    pub(super) most_at_once: AtomicU32,
    pub(super) steps: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fails {
    Before,
    /// All were published, without a confirmation.
    After,
    Hangs,
}

#[async_trait]
impl EventSink for FakeSink {
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fails = self.failures.lock().unwrap().pop_front();
        match fails {
            Some(Fails::Before) => return Err("gone".into()),
            Some(Fails::Hangs) => std::future::pending().await,
            Some(Fails::After) | None => {}
        }
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        self.steps.lock().unwrap().push(format!("publish {:?}", rows.iter().map(|row| row.id).collect::<Vec<_>>()));
        self.published.lock().unwrap().extend(rows.iter().map(|row| (row.shard, row.id)));
        if fails.is_some() { Err("no confirmation".into()) } else { Ok(()) }
    }
}

impl FakeSink {
    /// The ids of a shard in the order of their first delivery.
    pub(super) fn firsts(&self, shard: u32) -> Vec<i64> {
        let mut seen = HashSet::new();
        self.published.lock().unwrap().iter().filter(|row| row.0 == shard && seen.insert(row.1)).map(|row| row.1).collect()
    }
}

//! A scripted waiting room that ends turns, and notes them. No other method is called.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use boxoffice_domain::waiting::{DrawView, Entered, Extended, Health, Place, PlaceClaim, RoomCounts, RoomSummary, Stock, Ticked};
use boxoffice_domain::{Admission, ConcertId, QueueEntryId, Timestamp, UserId};
use boxoffice_ports::{Opening, RoomError, WaitingRoom};
use tokio::sync::Semaphore;

pub(crate) struct FakeRoom {
    /// Each end takes a permit, and waits for one.
    pub(crate) gate: Semaphore,
    pub(crate) is_away: AtomicBool,
    pub(crate) panics: AtomicBool,
    /// Calls, answered or not.
    pub(crate) asked: Mutex<Vec<(ConcertId, UserId, Timestamp)>>,
    /// Turns that were ended.
    pub(crate) ended: Mutex<Vec<UserId>>,
}

impl FakeRoom {
    /// One that answers at once.
    pub(crate) fn open() -> Arc<Self> {
        Self::with_permits(Semaphore::MAX_PERMITS)
    }

    /// One that hangs, until permits are added.
    pub(crate) fn hung() -> Arc<Self> {
        Self::with_permits(0)
    }

    fn with_permits(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(permits),
            is_away: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            asked: Mutex::default(),
            ended: Mutex::default(),
        })
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub(crate) fn ended(&self) -> Vec<UserId> {
        self.ended.lock().unwrap().clone()
    }
}

#[async_trait]
impl WaitingRoom for FakeRoom {
    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.asked.lock().unwrap().push((concert, user, paid_at));
        assert!(!self.panics.load(Ordering::SeqCst), "a defect");
        if self.is_away.load(Ordering::SeqCst) {
            return Err(RoomError::Unavailable("gone".into()));
        }
        self.gate.acquire().await.unwrap().forget();
        self.ended.lock().unwrap().push(user);
        Ok(())
    }

    async fn open(&self, _: Opening) -> Result<(), RoomError> {
        unreachable!()
    }

    async fn join(&self, _: ConcertId, _: UserId, _: Option<String>, _: QueueEntryId) -> Result<Entered, RoomError> {
        unreachable!()
    }

    async fn place(&self, _: ConcertId, _: QueueEntryId) -> Result<Option<Place>, RoomError> {
        unreachable!()
    }

    async fn touch(&self, _: ConcertId, _: QueueEntryId) -> Result<Option<Place>, RoomError> {
        unreachable!()
    }

    async fn restore(&self, _: ConcertId, _: PlaceClaim) -> Result<Option<Place>, RoomError> {
        unreachable!()
    }

    async fn leave(&self, _: ConcertId, _: QueueEntryId) -> Result<(), RoomError> {
        unreachable!()
    }

    async fn extend(&self, _: ConcertId, _: QueueEntryId, _: Timestamp) -> Result<Extended, RoomError> {
        unreachable!()
    }

    async fn tick(&self, _: ConcertId, _: Stock) -> Result<Ticked, RoomError> {
        unreachable!()
    }

    fn report_health(&self, _: Health) {}

    async fn admission(&self, _: ConcertId) -> Result<Admission, RoomError> {
        unreachable!()
    }

    async fn set_admission(&self, _: ConcertId, _: Admission, _: Admission) -> Result<bool, RoomError> {
        unreachable!()
    }

    async fn counts(&self, _: ConcertId) -> Result<RoomCounts, RoomError> {
        unreachable!()
    }

    async fn summary(&self, _: ConcertId) -> Result<RoomSummary, RoomError> {
        unreachable!()
    }

    async fn draw(&self, _: ConcertId) -> Result<Option<DrawView>, RoomError> {
        unreachable!()
    }

    async fn ping(&self) -> Result<(), RoomError> {
        Ok(())
    }
}

//! A mirror in memory that counts, and that stops on its way when it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use boxoffice_adapters::memory::MemoryStore;
use boxoffice_domain::{Admission, ConcertId, QueueEntryId};
use boxoffice_ports::{ActivePlace, DrawRecord, OwnAdmission, RoomMark, RoomMirror, StoreError};
use tokio::sync::Notify;

/// Where a save waits.
#[derive(Default)]
pub(super) struct Gate {
    pub(super) arrived: Notify,
    pub(super) go: Notify,
}

pub(super) struct WatchedMirror {
    inner: Arc<MemoryStore>,
    /// For the next save of a turn that begins: whether to stop after it is done or before.
    gate: Mutex<Option<(Arc<Gate>, bool)>>,
    /// For the next load, and the next reading of an admission: it waits when it has read.
    admission_gate: Mutex<Option<Arc<Gate>>>,
    load_gate: Mutex<Option<Arc<Gate>>>,
    pub(super) loads: AtomicUsize,
    pub(super) saves: AtomicUsize,
}

impl WatchedMirror {
    pub(super) fn new(inner: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            gate: Mutex::default(),
            load_gate: Mutex::default(),
            admission_gate: Mutex::default(),
            loads: AtomicUsize::new(0),
            saves: AtomicUsize::new(0),
        })
    }

    pub(super) fn stop_admission(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.admission_gate.lock().expect("a gate") = Some(Arc::clone(&gate));
        gate
    }

    pub(super) fn stop_load(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.load_gate.lock().expect("a gate") = Some(Arc::clone(&gate));
        gate
    }

    pub(super) fn stop(&self, after_save: bool) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.gate.lock().expect("a gate") = Some((Arc::clone(&gate), after_save));
        gate
    }
}

#[async_trait]
impl RoomMirror for WatchedMirror {
    async fn save(&self, concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        let gate = if began.is_empty() { None } else { self.gate.lock().expect("a gate").take() };
        let wait = async |at_the_end: bool| {
            if let Some((gate, after)) = &gate
                && *after == at_the_end
            {
                gate.arrived.notify_one();
                gate.go.notified().await;
            }
        };
        wait(false).await;
        self.inner.save(concert, mark, began, ended).await?;
        wait(true).await;
        Ok(())
    }

    async fn load(&self, concert: ConcertId) -> Result<Option<(RoomMark, Vec<ActivePlace>)>, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let loaded = self.inner.load(concert).await;
        let gate = self.load_gate.lock().expect("a gate").take();
        if let Some(gate) = gate {
            gate.arrived.notify_one();
            gate.go.notified().await;
        }
        loaded
    }

    async fn admission(&self, concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError> {
        let read = self.inner.admission(concert).await;
        let gate = self.admission_gate.lock().expect("a gate").take();
        if let Some(gate) = gate {
            gate.arrived.notify_one();
            gate.go.notified().await;
        }
        read
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError> {
        self.inner.set_admission(concert, was, to).await
    }

    async fn keep_draw(&self, concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError> {
        self.inner.keep_draw(concert, draw).await
    }

    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawRecord>, StoreError> {
        self.inner.draw(concert).await
    }
}

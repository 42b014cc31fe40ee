//! One room of this instance: its replica, the calls that wait for its log, and what has to be appended or mirrored.

use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use boxoffice_domain::waiting::{Room, RoomChange};
use boxoffice_domain::{ConcertId, Timestamp, UserId};
use boxoffice_ports::{LogPosition, Opening};
use tokio::time::Instant;

use super::context::{Context, RoomNews};
use super::pending::PendingCalls;
use super::presence::Presence;
use super::replica::Replica;
use super::unmirrored::Unmirrored;
use crate::sync::{lock, read, write};

/// Abandoned users that wait to be handed to [`crate::HoldReturns`]. Beyond it their holds run out.
const ABANDONED_MAX: usize = 100_000;

pub(super) struct RoomHandle {
    pub(super) context: Arc<Context>,
    pub(super) concert: ConcertId,
    replica: RwLock<Replica>,
    pub(super) pending: Mutex<PendingCalls>,
    pub(super) presence: Mutex<Presence>,
    pub(super) unmirrored: Mutex<Unmirrored>,
    /// What the room was opened with here, and which opening the room has accepted.
    pub(super) opening: Mutex<Option<Opening>>,
    pub(super) accepted: Mutex<Option<Opening>>,
    /// When an exchange failed last. Whether its inputs were appended is not known.
    pub(super) failed_at: Mutex<Option<Instant>>,
    /// Users whose turn ended because they were gone.
    abandoned: Mutex<Vec<UserId>>,
    /// When the last step ended.
    pub(super) stepped_at: Mutex<Option<Instant>>,
    /// One step at a time, and one reservation.
    pub(super) stepping: tokio::sync::Mutex<()>,
    pub(super) reserving: tokio::sync::Mutex<()>,
    /// One draw, which may have to wait for its beacon, and one snapshot.
    pub(super) revealing: Arc<tokio::sync::Mutex<()>>,
    pub(super) compacting: Arc<tokio::sync::Mutex<()>>,
}

impl RoomHandle {
    pub(super) fn new(context: Arc<Context>, concert: ConcertId) -> Arc<Self> {
        Arc::new(Self {
            context,
            concert,
            replica: RwLock::new(Replica::new()),
            pending: Mutex::default(),
            presence: Mutex::default(),
            unmirrored: Mutex::default(),
            opening: Mutex::default(),
            accepted: Mutex::default(),
            failed_at: Mutex::default(),
            abandoned: Mutex::default(),
            stepped_at: Mutex::default(),
            stepping: tokio::sync::Mutex::default(),
            reserving: tokio::sync::Mutex::default(),
            revealing: Arc::default(),
            compacting: Arc::default(),
        })
    }

    /// A room that panicked half way through an input is a defect. Every instance has the same one, and the log has it
    /// right.
    pub(super) fn replica(&self) -> RwLockReadGuard<'_, Replica> {
        read(&self.replica)
    }

    pub(super) fn replica_mut(&self) -> RwLockWriteGuard<'_, Replica> {
        write(&self.replica)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.replica().now(&*self.context.parts.clock)
    }

    /// Whether some users wait to be handed on.
    pub(super) fn has_abandoned(&self) -> bool {
        !lock(&self.abandoned).is_empty()
    }

    /// The users whose turn ended because they were gone, of the records that this instance appended.
    pub(super) fn take_abandoned(&self) -> Vec<UserId> {
        std::mem::take(&mut *lock(&self.abandoned))
    }

    /// These wait to be handed on, as far as there is room for them.
    pub(super) fn add_abandoned(&self, users: Vec<UserId>) {
        let mut abandoned = lock(&self.abandoned);
        let free = ABANDONED_MAX.saturating_sub(abandoned.len());
        abandoned.extend(users.into_iter().take(free));
    }

    pub(super) fn publish(&self, changes: Vec<RoomChange>, replaced: bool) {
        // An error means that there is no receiver.
        let _ = self.context.news.send(Arc::new(RoomNews { concert: self.concert, now: self.now(), changes, replaced }));
    }

    /// Puts `room` in the place of the one there was, and returns that.
    pub(super) fn replace(&self, now: Timestamp, position: LogPosition, room: Room) -> Option<Room> {
        let before = {
            let mut replica = self.replica_mut();
            let before = replica.begin(room, position);
            let clock = &*self.context.parts.clock;
            replica.observe_time(now, clock.offset(), clock);
            before
        };
        self.publish(Vec::new(), true);
        before
    }
}

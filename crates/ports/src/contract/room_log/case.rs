//! The log that a case is about, and the short ways in which cases use it.

use std::any::Any;
use std::sync::Arc;

use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{ConcertId, Lane};
use chrono::TimeDelta;

use super::super::build::{fresh, user};
use crate::{Exchanged, LogPosition, RoomLog};

/// Two instances on a fresh, empty store with a clock that can be moved, also back.
pub struct RoomLogFixture {
    pub log: Arc<dyn RoomLog>,
    pub other: Arc<dyn RoomLog>,
    pub advance: Arc<dyn Fn(TimeDelta) + Send + Sync>,
    /// What must live as long as the store.
    pub keep: Box<dyn Any + Send + Sync>,
}

pub(super) fn join() -> RoomInput {
    RoomInput::Join { user: user(), entry: fresh(), lane: Lane(0) }
}

pub(super) fn joins(count: usize) -> Vec<RoomInput> {
    (0..count).map(|_| join()).collect()
}

/// The snapshot that the log of [`begun`] begins with.
pub(super) const BEGUN: &[u8] = b"begun";

/// A concert whose log has begun.
pub(super) async fn begun(fixture: &RoomLogFixture) -> ConcertId {
    let concert = fresh();
    assert!(fixture.log.begin(concert, BEGUN.to_vec()).await.expect("an answer"), "there was none");
    concert
}

pub(super) async fn exchange(log: &Arc<dyn RoomLog>, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Exchanged {
    log.exchange(concert, since, inputs).await.expect("an exchange")
}

/// Where a new reader begins.
pub(super) async fn beginning(log: &Arc<dyn RoomLog>, concert: ConcertId) -> (LogPosition, Vec<u8>) {
    match exchange(log, concert, LogPosition::default(), Vec::new()).await {
        Exchanged::Begin { position, snapshot, .. } => (position, snapshot),
        other => panic!("a beginning was expected, and not {other:?}"),
    }
}

pub(super) async fn compact(log: &Arc<dyn RoomLog>, concert: ConcertId, upto: LogPosition, snapshot: &[u8]) -> bool {
    log.compact(concert, upto, snapshot.to_vec()).await.expect("an answer")
}

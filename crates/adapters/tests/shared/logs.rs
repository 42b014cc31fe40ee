//! Helpers to use a waiting room's log.

use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::{Lane, RoomInput};
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{Exchanged, LogPosition, RoomLog, RoomRecord};
use std::sync::Arc;

pub(crate) fn joins(count: usize) -> Vec<RoomInput> {
    (0..count).map(|_| RoomInput::Join { user: user(), entry: fresh(), lane: Lane(0) }).collect()
}

/// A concert whose log has begun, and the position of its beginning.
pub(crate) async fn begun(log: &Arc<dyn RoomLog>) -> (ConcertId, LogPosition) {
    let concert = fresh();
    assert!(log.begin(concert, b"begun".to_vec()).await.expect("an answer"));
    match log.exchange(concert, LogPosition::default(), Vec::new()).await.expect("an exchange") {
        Exchanged::Begin { position, .. } => (concert, position),
        other => panic!("expected a beginning, got {other:?}"),
    }
}

/// The records that follow `position`. `inputs` must be appended; their record comes last.
pub(crate) async fn exchange(
    log: &Arc<dyn RoomLog>,
    concert: ConcertId,
    position: &mut LogPosition,
    inputs: Vec<RoomInput>,
) -> Vec<RoomRecord> {
    let appends = !inputs.is_empty();
    match log.exchange(concert, *position, inputs).await.expect("an exchange") {
        Exchanged::Records { records, appended, .. } if appended == appends => {
            position.seq = records.last().map_or(position.seq, |record| record.seq);
            records
        }
        other => panic!("expected records, got {other:?}"),
    }
}

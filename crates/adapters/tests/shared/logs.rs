//! Short ways to use a waiting room's log, and how fast it is.

use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::{Lane, RoomInput};
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{Exchanged, LogPosition, RoomLog, RoomRecord};
use std::sync::Arc;

pub(crate) fn joins(count: usize) -> Vec<RoomInput> {
    (0..count).map(|_| RoomInput::Join { user: user(), entry: fresh(), lane: Lane(0) }).collect()
}

/// A concert whose log has begun, and where it begins.
pub(crate) async fn begun(log: &Arc<dyn RoomLog>) -> (ConcertId, LogPosition) {
    let concert = fresh();
    assert!(log.begin(concert, b"begun".to_vec()).await.expect("an answer"));
    match log.exchange(concert, LogPosition::default(), Vec::new()).await.expect("an exchange") {
        Exchanged::Begin { position, .. } => (concert, position),
        other => panic!("a beginning was expected, and not {other:?}"),
    }
}

/// What follows; with inputs, which must be appended, theirs is the last.
pub(crate) async fn exchange(
    log: &Arc<dyn RoomLog>,
    concert: ConcertId,
    position: &mut LogPosition,
    inputs: Vec<RoomInput>,
) -> Vec<RoomRecord> {
    let told = !inputs.is_empty();
    match log.exchange(concert, *position, inputs).await.expect("an exchange") {
        Exchanged::Records { records, appended, .. } if appended == told => {
            position.seq = records.last().map_or(position.seq, |record| record.seq);
            records
        }
        other => panic!("records were expected, and not {other:?}"),
    }
}

//! Short ways to use a waiting room's log, and how fast it is.

use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::{Lane, RoomInput};
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{Exchanged, LogPosition, RoomLog, RoomRecord};
use std::sync::Arc;
use std::time::Instant;

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

/// Prints how many records a second one instance appends, each after the answer to the one before.
pub(crate) async fn figures(name: &str, log: &Arc<dyn RoomLog>) {
    let (concert, mut position) = begun(log).await;
    for (count, inputs) in [(2_000, 1), (300, 1_000)] {
        let records: Vec<_> = (0..count).map(|_| joins(inputs)).collect();
        let began = Instant::now();
        for inputs in records {
            exchange(log, concert, &mut position, inputs).await;
        }
        println!("{name}: {:.0} records/s of {inputs} joins", f64::from(count) / began.elapsed().as_secs_f64());
    }
}

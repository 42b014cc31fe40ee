//! A broker stands still under a server whose wallets are charged through it.

use super::{Kind, a_part_hangs, wait};
use crate::brokers::{Log, OwnBroker, through_each_log};
use boxoffice_tests::Setup;

/// What was appended before it hung may have been read, and is answered as it was decided.
fn statuses(kind: Kind) -> &'static [u16] {
    match kind {
        Kind::Charge => &[202, 503],
        _ => &[200, 201],
    }
}

pub(super) async fn a_broker_that_hangs_keeps_no_caller(log: Log) {
    let broker = OwnBroker::start(log).await;
    let setup = broker.serve(Setup::default().on_postgres().await).with(&wait());
    let server = setup.with(&format!("strategy.wallet={}", log.name())).start().await;
    a_part_hangs(server, Some(log.name()), statuses, async || broker.pause(), async || broker.resume()).await;
}

through_each_log! {
    a_broker_that_hangs_keeps_no_caller
}

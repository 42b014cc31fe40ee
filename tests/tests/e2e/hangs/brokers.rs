//! Wallets are charged through a broker, and it hangs, or the store behind it.

use super::{Kind, a_part_hangs, wait};
use crate::brokers::{Log, OwnBroker, own_postgres, through_each_log};
use boxoffice_services::RabbitMq;
use boxoffice_tests::proxy::Proxy;
use boxoffice_tests::{Server, Setup, services};
use tokio::task::block_in_place;

/// A command that was appended before the broker hung may have been read: then it is answered as it was decided.
fn without_broker(kind: Kind) -> &'static [u16] {
    match kind {
        Kind::Charge => &[202, 503],
        _ => &[200, 201],
    }
}

/// A command in the log will be decided.
fn without_store(kind: Kind) -> &'static [u16] {
    match kind {
        Kind::Charge => &[202, 503],
        Kind::Look => &[200],
        _ => &[503],
    }
}

async fn start(log: Log, setup: Setup) -> Server {
    setup.with(&wait()).with(&format!("strategy.wallet={}", log.name())).start().await
}

pub(super) async fn a_broker_that_hangs_keeps_no_caller_waiting(log: Log) {
    let broker = OwnBroker::start(log).await;
    let server = start(log, broker.serve(Setup::default().on_postgres().await)).await;
    a_part_hangs(server, Some(log.name()), without_broker, async || broker.pause(), async || broker.resume()).await;
}

pub(super) async fn a_store_that_hangs_behind_a_broker_keeps_no_caller_waiting(log: Log) {
    let (cluster, url) = own_postgres();
    let setup = Setup::default().on_postgres().await.with(&format!("store.postgres_url={url}"));
    let setup = match log {
        Log::Kafka => setup.on_kafka(&services::kafka().await),
        Log::RabbitMq => setup.on_rabbitmq(&services::rabbitmq().await),
    };
    let server = start(log, setup).await;
    let (pause, resume) = (async || cluster.pause().expect("stopped"), async || cluster.resume().expect("it goes on"));
    a_part_hangs(server, Some("store"), without_store, pause, resume).await;
}

through_each_log! {
    a_broker_that_hangs_keeps_no_caller_waiting
    a_store_that_hangs_behind_a_broker_keeps_no_caller_waiting
}

/// All connections end; new ones are accepted and never answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_that_hangs_while_connecting_keeps_no_caller_waiting() {
    let port = block_in_place(|| RabbitMq::shared().port());
    let proxy = Proxy::before(port).await;
    let url = services::rabbitmq().await.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let server = start(Log::RabbitMq, Setup::default().on_postgres().await.on_rabbitmq(&url)).await;
    let hang = async || {
        proxy.hang();
        proxy.cut();
    };
    a_part_hangs(server, Some("rabbitmq"), without_broker, hang, async || proxy.go_on()).await;
}

//! Redis hangs, under locks and waiting rooms; and one of the nodes of a Redlock, or most of them.

use super::{Kind, a_part_hangs, wait};
use boxoffice_services::Redis;
use boxoffice_tests::proxy::Proxy;
use boxoffice_tests::services::{redis_nodes, redlock_setting};
use boxoffice_tests::{Server, Setup};
use tokio::task::spawn_blocking;

/// How many nodes a Redlock has here.
const NODES: usize = 5;

fn all_well(_: Kind) -> &'static [u16] {
    &[200, 201]
}

fn without_redis(kind: Kind) -> &'static [u16] {
    match kind {
        Kind::Charge | Kind::Hold | Kind::Join => &[503],
        _ => &[200, 201],
    }
}

fn without_locks(kind: Kind) -> &'static [u16] {
    match kind {
        Kind::Charge => &[409, 503],
        _ => &[200, 201],
    }
}

async fn nodes(count: usize) -> Vec<Redis> {
    spawn_blocking(move || redis_nodes(count)).await.unwrap()
}

async fn start_on(url: &str, strategy: &str) -> Server {
    let setup = Setup::default().on_postgres().await.with(&wait()).with(&format!("redis.urls=[{url:?}]"));
    setup.with(&format!("strategy.wallet={strategy}")).with("queue.backend=redis").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_keeps_no_caller_waiting() {
    let node = nodes(1).await.remove(0);
    let server = start_on(&node.url(), "pubsub").await;
    let (pause, resume) = (async || node.pause().expect("stopped"), async || node.resume().expect("it goes on"));
    a_part_hangs(server, Some("redis"), without_redis, pause, resume).await;
}

/// All connections end; new ones are accepted and never answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_while_connecting_keeps_no_caller_waiting() {
    let node = nodes(1).await.remove(0);
    let proxy = Proxy::before(node.port()).await;
    let server = start_on(&format!("redis://127.0.0.1:{}", proxy.port()), "spin").await;
    let hang = async || {
        proxy.hang();
        proxy.cut();
    };
    a_part_hangs(server, Some("redis"), without_redis, hang, async || proxy.go_on()).await;
}

/// The first `hung` of the nodes hang.
async fn redlock_nodes_that_hang(hung: usize) {
    let nodes = nodes(NODES).await;
    let urls: Vec<_> = nodes.iter().map(Redis::url).collect();
    let setup = Setup::default().on_postgres().await.with("strategy.wallet=redlock").with(&redlock_setting(&urls));
    let pause = async || nodes[..hung].iter().for_each(|node| node.pause().expect("stopped"));
    let resume = async || nodes[..hung].iter().for_each(|node| node.resume().expect("it goes on"));
    if hung * 2 < NODES {
        // With the default `wait_ms`: the callers of a wallet wait until the node counts as hung, half a second.
        let server = setup.start().await;
        a_part_hangs(server, None, all_well, pause, resume).await;
    } else {
        let server = setup.with(&wait()).start().await;
        a_part_hangs(server, Some("redlock"), without_locks, pause, resume).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redlock_node_that_hangs_changes_nothing() {
    redlock_nodes_that_hang(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn most_redlock_nodes_that_hang_keep_no_caller_waiting() {
    redlock_nodes_that_hang(3).await;
}

//! PostgreSQL hangs: all of its processes, or the network between it and the server.

use super::{Kind, a_part_hangs, wait};
use boxoffice_services::Postgres;
use boxoffice_tests::proxy::Proxy;
use boxoffice_tests::{Server, Setup, services};
use tokio::task::spawn_blocking;

/// The bytes that end a transaction; no other statement contains them.
const COMMIT: &[u8] = b"COMMIT\0";

fn statuses(kind: Kind) -> &'static [u16] {
    match kind {
        Kind::Look => &[200],
        _ => &[503],
    }
}

async fn start(strategy: &str, url: &str) -> Server {
    let setup = Setup::default().on_postgres().await.with(&wait()).with(&format!("store.postgres_url={url}"));
    setup.with(&format!("strategy.wallet={strategy}")).start().await
}

/// Every process of PostgreSQL hangs, with commits in flight; new connections hang during their start-up.
async fn postgres_that_hangs(strategy: &str) {
    let cluster = spawn_blocking(|| Postgres::start().expect("PostgreSQL starts")).await.unwrap();
    let server = start(strategy, &cluster.database().expect("a database")).await;
    let (pause, resume) = (async || cluster.pause().expect("stopped"), async || cluster.resume().expect("it goes on"));
    a_part_hangs(server, Some("store"), statuses, pause, resume).await;
}

/// A server on a database of its own, and the proxy in between.
async fn behind_a_proxy(strategy: &str) -> (Server, Proxy) {
    let (url, port) = (services::database().await, Postgres::shared().port());
    let proxy = Proxy::before(port).await;
    let url = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    (start(strategy, &url).await, proxy)
}

/// All connections end; new ones are accepted and never answered, so that their start-up has no end.
async fn postgres_that_hangs_while_connecting(strategy: &str) {
    let (server, proxy) = behind_a_proxy(strategy).await;
    let hang = async || {
        proxy.hang();
        proxy.cut();
    };
    a_part_hangs(server, Some("store"), statuses, hang, async || proxy.go_on()).await;
}

/// The fate of a COMMIT that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    /// It reaches PostgreSQL late.
    Late,
    /// It is done, and its answer comes late.
    Done,
    /// It never reaches PostgreSQL: its connection ends.
    Never,
    /// It is done, and its answer never comes: its connection ends.
    Unanswered,
    /// It is done, its answer never comes, and its connection stays open.
    Forgotten,
    /// It never reaches PostgreSQL, and its connection stays open: its rows are locked until PostgreSQL ends the session.
    Lost,
}

async fn postgres_that_hangs_in_a_commit(strategy: &str, commit: Commit) {
    let (server, proxy) = behind_a_proxy(strategy).await;
    let hang = async || {
        match commit {
            Commit::Late | Commit::Never | Commit::Lost => proxy.hang_before(COMMIT),
            Commit::Done | Commit::Unanswered | Commit::Forgotten => proxy.hang_behind(COMMIT),
        }
        proxy.hangs().await;
    };
    let go_on = async || match commit {
        Commit::Late | Commit::Done => proxy.go_on(),
        Commit::Never | Commit::Unanswered => {
            proxy.cut();
            proxy.go_on();
        }
        Commit::Forgotten | Commit::Lost => proxy.go_on_anew(),
    };
    a_part_hangs(server, Some("store"), statuses, hang, go_on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_keeps_no_caller_waiting_with_combining() {
    postgres_that_hangs("combining").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_keeps_no_caller_waiting_with_optimistic() {
    postgres_that_hangs("optimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_keeps_no_caller_waiting_with_pubsub() {
    postgres_that_hangs("pubsub").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_while_connecting_keeps_no_caller_waiting_with_combining() {
    postgres_that_hangs_while_connecting("combining").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_while_connecting_keeps_no_caller_waiting_with_pessimistic() {
    postgres_that_hangs_while_connecting("pessimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_late_has_one_effect() {
    postgres_that_hangs_in_a_commit("combining", Commit::Late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_comes_late_has_one_effect() {
    postgres_that_hangs_in_a_commit("combining", Commit::Done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_comes_has_one_effect() {
    postgres_that_hangs_in_a_commit("pessimistic", Commit::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_never_answered_has_one_effect() {
    postgres_that_hangs_in_a_commit("combining", Commit::Unanswered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_never_answered_has_one_effect_with_optimistic() {
    postgres_that_hangs_in_a_commit("optimistic", Commit::Unanswered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_connection_is_forgotten_has_one_effect() {
    postgres_that_hangs_in_a_commit("combining", Commit::Forgotten).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_lost_with_its_connection_has_one_effect() {
    postgres_that_hangs_in_a_commit("pessimistic", Commit::Lost).await;
}

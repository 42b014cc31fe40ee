//! Another process keeps the write lock of the embedded store's file: what writes is refused in time, and the rest goes
//! on.

use super::{Kind, a_part_hangs, wait};
use boxoffice_tests::Setup;
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use tokio::task::block_in_place;

fn statuses(kind: Kind) -> &'static [u16] {
    match kind {
        // Under a lock in this process the later ones wait for that.
        Kind::Charge => &[409, 503],
        Kind::Hold | Kind::Join | Kind::Import => &[503],
        Kind::Read | Kind::Look => &[200],
    }
}

async fn a_locked_file_keeps_no_caller(strategy: &str) {
    let classes = ["seat", "wallet", "payment"].map(|class| format!("strategy.{class}={strategy}"));
    let setup = classes.iter().fold(Setup::default().with(&wait()), |setup, class| setup.with(class));
    let server = setup.start().await;
    let mut outside = SqliteConnection::establish(server.database().to_str().unwrap()).unwrap();
    let mut outside = |statements: &str| block_in_place(|| outside.batch_execute(statements).unwrap());
    outside("PRAGMA busy_timeout = 30000");
    let outside = std::cell::RefCell::new(outside);
    let (lock, unlock) = (async || outside.borrow_mut()("BEGIN IMMEDIATE"), async || outside.borrow_mut()("ROLLBACK"));
    a_part_hangs(server, Some("store"), statuses, lock, unlock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_keeps_no_caller_of_combining() {
    a_locked_file_keeps_no_caller("combining").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_keeps_no_caller_of_pessimistic() {
    a_locked_file_keeps_no_caller("pessimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_keeps_no_caller_of_optimistic() {
    a_locked_file_keeps_no_caller("optimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_keeps_no_caller_of_memory() {
    a_locked_file_keeps_no_caller("memory").await;
}

//! Another process holds the write lock of the embedded store's file: writes are refused in time, and reads go on.

use super::{Kind, a_part_hangs, wait};
use boxoffice_tests::Setup;
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use tokio::task::block_in_place;

fn statuses(kind: Kind) -> &'static [u16] {
    match kind {
        // With a lock in this process, later charges wait for that lock.
        Kind::Charge => &[409, 503],
        Kind::Hold | Kind::Join | Kind::Import => &[503],
        Kind::Read | Kind::Look => &[200],
    }
}

async fn a_locked_file_keeps_no_caller_waiting(strategy: &str) {
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
async fn a_locked_file_keeps_no_caller_waiting_with_combining() {
    a_locked_file_keeps_no_caller_waiting("combining").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_keeps_no_caller_waiting_with_pessimistic() {
    a_locked_file_keeps_no_caller_waiting("pessimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_keeps_no_caller_waiting_with_optimistic() {
    a_locked_file_keeps_no_caller_waiting("optimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_keeps_no_caller_waiting_with_memory() {
    a_locked_file_keeps_no_caller_waiting("memory").await;
}

//! The suites that every adapter of a port must pass.
//!
//! An adapter's test names a function that makes a fresh [`Fixture`] (or lock) and gets one test for each case:
//! `boxoffice_ports::ledger_contract!(make_fixture);`, `mirror_contract!(make_fixture);`,
//! `lock_contract!(make_lock);`, `command_log_contract!(make_broker);`, `room_log_contract!(make_log);`; and
//! `room_contract!(make_rooms);` for the waiting rooms over any log.
//! Every ledger case ends with a clean audit. [`build`] and [`shop`] are for other tests too.

pub mod build;
pub mod command_log;
mod fixture;
pub mod ledger;
pub mod lock;
pub mod mirror;
pub mod room;
pub mod room_log;
pub mod shop;
pub mod tasks;

pub use fixture::Fixture;
pub use ledger::{batches, booking, catalog, changes, contention, expiry, lists, replies};
pub use tasks::supervisor;

/// One test for each case of a module of this one.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_cases {
    ($make:path; $module:ident { $($case:ident)* }) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            ::std::boxed::Box::pin($crate::contract::$module::$case($make().await)).await;
        }
    )*};
}

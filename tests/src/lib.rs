//! A server of one's own for each test, in this process or as the real binary, and people who use it over HTTP.
//!
//! Every server listens on a free loopback port and keeps its file in a temporary folder that goes with it. Tests wait
//! for conditions with a bound ([`eventually`]); the clock is moved, never slept through.

mod listener;
pub mod mutants;
mod person;
mod process;
pub mod proxy;
mod server;
pub mod services;

pub use listener::{HANDSHAKE, Kind, Listener, Standing};
pub use person::{Answer, Person};
pub use process::Process;
pub use server::{Server, Setup, concert, seats};

use std::time::Duration;

/// For HTTP; it could speak TLS, so that has to be there.
pub fn client() -> reqwest::ClientBuilder {
    boxoffice_app::crypto::install();
    reqwest::Client::builder()
}

/// How long a condition is waited for: ten times what any stated bound allows.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `what` gives something.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn eventually<T>(why: &str, mut what: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never came: {why}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs all of `futures` at once, as tasks, and gives what came of them in their order.
///
/// # Panics
/// When one of them does.
pub async fn at_once<T: Send + 'static>(futures: impl IntoIterator<Item: Future<Output = T> + Send + 'static>) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.expect("a task of the test panicked"));
    }
    results
}

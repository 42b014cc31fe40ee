//! `boxoffice`: see [`boxoffice::cli`] for what it can be told to do.

use boxoffice::cli::{self, Arguments};
use std::process::ExitCode;

/// A server makes and drops thousands of small things a second on every thread: the system's allocator has them wait
/// for one another, and looks for room again and again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    boxoffice::install_tls();
    match cli::run(Arguments::of_process()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("boxoffice: {}", cli::describe(&error));
            ExitCode::FAILURE
        }
    }
}

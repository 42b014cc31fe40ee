//! `boxoffice`: see [`boxoffice::cli`] for what it can be told to do.

use boxoffice::cli::{self, Arguments};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // Before anything may want TLS; there is one provider in the tree, so nobody can have been first.
    #[cfg(feature = "postgres")]
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::run(Arguments::of_process()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("boxoffice: {}", cli::describe(&error));
            ExitCode::FAILURE
        }
    }
}

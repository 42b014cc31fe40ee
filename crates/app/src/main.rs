//! `boxoffice`: see [`boxoffice::cli`] for what it can be told to do.

use boxoffice::cli::{self, Arguments};
use std::process::ExitCode;

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

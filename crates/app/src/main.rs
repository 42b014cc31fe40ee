//! `boxoffice`: see [`boxoffice::cli`] for what it can be told to do.

use boxoffice::cli::{self, Arguments};
use clap::Parser as _;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("boxoffice: {}", cli::describe(&error));
            ExitCode::FAILURE
        }
    }
}

//! `boxoffice`: the command line. Answers go to standard output, logs and errors to standard error.
//!
//! Exit codes: 0 success; 1 failure, also if `audit` finds a breach, `import` a fault, `bench` an answer that the store
//! contradicts, or `draw verify` data that does not match; 2 a wrong command line.

mod arguments;
mod audit;
mod bench;
mod draw;
mod import;
mod input;
mod output;
mod serve;
mod simulate;

use anyhow::Context as _;
use arguments::{Arguments, Task};
use boxoffice_app::config::{Layers, Settings};
use boxoffice_app::{config, http, telemetry, wiring};
use output::{describe, print};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    boxoffice_app::crypto::install();
    match run(Arguments::of_process()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("boxoffice: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs the command.
async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { config, set, json, command } = arguments;
    let task = command.unwrap_or(Task::Serve);
    if matches!(task, Task::Openapi) {
        print(&http::openapi().to_pretty_json()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Task::Simulate(options) = &task {
        return simulate::run(options, json);
    }
    if let Task::Draw(task) = &task {
        return Box::pin(draw::run(task, json)).await;
    }
    let mut settings = config::load(&Layers::of_process(config, set)).context("the configuration is invalid")?;
    if matches!(task, Task::Bench(_)) {
        bench::quieten(&mut settings)?;
    }
    telemetry::init(&settings.telemetry)?;
    match task {
        Task::Serve => Box::pin(serve::run(settings)).await,
        Task::Migrate => migrate(&settings, json).await,
        Task::Import { file } => import::run(&settings, &file, json).await,
        Task::Audit => audit::run(&settings, json).await,
        Task::Bench(options) => Box::pin(bench::run(&settings, &options, json)).await,
        Task::Config => show(&settings, json),
        Task::Openapi | Task::Draw(_) | Task::Simulate(_) => Ok(ExitCode::SUCCESS),
    }
}

async fn migrate(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let applied = wiring::migrate(settings).await?;
    let path = settings.store.place();
    let text = match applied.as_slice() {
        _ if json => serde_json::json!({ "applied": applied }).to_string(),
        [] => format!("{path}: the schema is up to date"),
        applied => format!("{path}: applied {}", applied.join(", ")),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn show(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let text = if json { serde_json::to_string_pretty(settings)? } else { toml::to_string(settings)? };
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

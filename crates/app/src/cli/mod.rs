//! The command line. Answers go to standard output, logs and complaints to standard error.
//!
//! Exit codes: 0 done; 1 it could not be done, or `audit` found a breach, or `import` a fault,
//! or `bench` an answer that is not true, or `draw verify` a draw that does not hold; 2 a wrong command line.

mod audit;
mod bench;
mod draw;
mod import;
mod serve;
mod simulate;

use crate::config::{Layers, Settings};
use crate::{config, http, telemetry, wiring};
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// A concert-booking server: waiting room, seat map, holds, wallet, payment, refund and points.
#[derive(Debug, Parser)]
#[command(name = "boxoffice", version, about)]
pub struct Arguments {
    /// A TOML file laid over the built-in configuration
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets one key, over everything else; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Machine output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Serves until it is told to stop (the default)
    Serve,
    /// Brings the store's schema up to date
    Migrate,
    /// Brings concerts in, from a file with one concert document or an array of them; a server may be running
    Import {
        file: PathBuf,
    },
    /// Checks the store's invariants in one snapshot; exits with 1 when one is broken; a server may be running
    Audit,
    Bench(bench::Options),
    /// Looks into the draw of those who came before a sale
    #[command(subcommand)]
    Draw(draw::Task),
    Simulate(simulate::Options),
    /// Prints the OpenAPI document
    Openapi,
    /// Prints the effective configuration, secrets hidden
    Config,
}

impl Arguments {
    /// What this process was called with; ends it, with a message, when that makes no sense.
    pub fn of_process() -> Self {
        Self::parse_from(gathered(std::env::args_os()))
    }
}

/// `--set` may stand on both sides of the subcommand. clap would keep one side alone, so all of them go behind it, in
/// their order.
fn gathered(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut others, mut sets) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--set") => {
                sets.push(argument);
                sets.extend(arguments.next());
            }
            Some(text) if text.starts_with("--set=") => sets.push(argument),
            Some("--") => {
                let rest: Vec<_> = std::iter::once(argument).chain(arguments).collect();
                return [others, sets, rest].concat();
            }
            _ => others.push(argument),
        }
    }
    [others, sets].concat()
}

/// Does what the command line says.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
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
    let mut settings = config::load(&Layers::of_process(config, set)).context("the configuration is refused")?;
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
        [] => format!("{path}: the schema was up to date"),
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

/// An error and its causes on one line; what an error already says of its cause is not said twice.
pub fn describe(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|said, cause| if said.contains(&cause) { said } else { format!("{said}: {cause}") })
        .unwrap_or_default()
}

/// A line, or several, to standard output. Whoever reads it may have enough: a closed pipe is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn causes_are_told_once() {
        let store = boxoffice_ports::StoreError::Unavailable("disk full".into());
        assert_eq!(describe(&anyhow::Error::from(store).context("import")), "import: the store is unavailable: disk full");
    }

    #[test]
    fn options_stand_before_or_after_the_subcommand() {
        for line in ["boxoffice --set hold.ttl_s=5 --json audit", "boxoffice audit --set hold.ttl_s=5 --json"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(matches!(arguments.command, Some(Task::Audit)) && arguments.json, "{line}");
            assert_eq!(arguments.set, ["hold.ttl_s=5"]);
        }
        for (line, set) in [
            ("boxoffice --set a.b=1 serve --set c.d=2 --set=e.f=3", ["a.b=1", "c.d=2", "e.f=3"].as_slice()),
            ("boxoffice --set a.b=1 --set=c.d=2", &["a.b=1", "c.d=2"]),
            ("boxoffice import --set a.b=1 -- --set", &["a.b=1"]),
        ] {
            let arguments = Arguments::try_parse_from(gathered(line.split(' ').map(OsString::from))).unwrap();
            assert_eq!(arguments.set, set, "{line}");
        }
        assert!(Arguments::try_parse_from(["boxoffice"]).unwrap().command.is_none());
        assert!(Arguments::try_parse_from(["boxoffice", "import"]).is_err());
        assert!(Arguments::try_parse_from(["boxoffice", "sell"]).is_err());
    }
}

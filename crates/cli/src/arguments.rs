//! The command line, read by clap.

use crate::{bench, draw, simulate};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// A concert-booking server: waiting room, seat map, holds, wallet, payment, refund and points.
#[derive(Debug, Parser)]
#[command(name = "boxoffice", version, about)]
pub(crate) struct Arguments {
    /// A TOML file laid over the built-in configuration
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, over everything else; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Machine output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Task>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Serves until SIGTERM or SIGINT (the default)
    Serve,
    /// Brings the store's schema up to date
    Migrate,
    /// Imports concerts from a file with one concert document or an array of them; a server may be running
    Import {
        file: PathBuf,
    },
    /// Checks the store's invariants in one snapshot; exits with 1 when one is broken; a server may be running
    Audit,
    Bench(bench::Options),
    /// Checks the draw of the buyers that joined before a sale
    #[command(subcommand)]
    Draw(draw::Task),
    Simulate(simulate::Options),
    /// Prints the OpenAPI document
    Openapi,
    /// Prints the effective configuration, secrets hidden
    Config,
}

impl Arguments {
    /// The arguments of this process; wrong ones end it, with a message.
    pub(crate) fn of_process() -> Self {
        Self::parse_from(gathered(std::env::args_os()))
    }
}

/// `--set` may stand on both sides of the subcommand. clap would keep one side alone, so all of them are moved behind
/// it, in their order.
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
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

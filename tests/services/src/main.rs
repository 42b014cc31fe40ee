//! Runs a command with services of its own: `boxoffice-services COMMAND ARGUMENT…`.
//!
//! The command finds them in its environment as the server's own settings: a durable PostgreSQL, a Redis node, and five
//! more for Redlock. They end with it.

use anyhow::{Context, Result, bail};
use boxoffice_services::{Postgres, Redis};
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

/// Independent nodes for Redlock.
const NODES: usize = 5;

fn main() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else { bail!("say what to run") };
    let postgres = Postgres::start_durable()?;
    let redis = Redis::start()?;
    let nodes = (0..NODES).map(|_| Redis::start()).collect::<Result<Vec<_>>>()?;
    let urls: Vec<_> = nodes.iter().map(|node| format!("{:?}", node.url())).collect();
    let mut command = Command::new(&program);
    command.args(arguments);
    command.env("BOXOFFICE__STORE__POSTGRES_URL", postgres.database()?);
    command.env("BOXOFFICE__REDIS__URLS", format!("[{:?}]", redis.url()));
    command.env("BOXOFFICE__REDIS__REDLOCK_NODES", format!("[{}]", urls.join(", ")));
    let status = command.status().with_context(|| program.to_string_lossy().into_owned())?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

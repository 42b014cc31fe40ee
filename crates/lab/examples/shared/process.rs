//! The servers of a measurement: this program again, as processes of their own.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use boxoffice_app::config::{self, Layers};
use boxoffice_app::telemetry;
use boxoffice_app::wiring::{self, SystemClock};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Set for the processes that serve.
const SERVE: &str = "BOXOFFICE_LAB_SERVES";

/// Whether this process is a server.
pub(crate) fn is_server() -> bool {
    std::env::var_os(SERVE).is_some()
}

/// Serves until the process is killed. Each argument is one `section.key=value`.
pub(crate) async fn serve() -> Result<()> {
    let settings = config::load(&Layers::of_process(None, std::env::args().skip(1).collect()))?;
    telemetry::init(&settings.telemetry)?;
    let mut running = wiring::start(settings, Arc::new(SystemClock::default())).await?;
    println!("{}", running.address);
    Ok(running.ended().await?)
}

/// Starts a server on a free port; returns it with its address.
pub(crate) async fn spawn(set: &[&str]) -> Result<(Child, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(SERVE, "1").args(["http.listen=127.0.0.1:0", "telemetry.log=error"]).args(set);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    match lines.next_line().await? {
        Some(address) => Ok((child, address)),
        None => bail!("the server ended: {:?}", child.wait().await?),
    }
}

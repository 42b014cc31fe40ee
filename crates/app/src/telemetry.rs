//! Logs, to standard error: standard output is for the answer of a command.

use crate::config::{LogFormat, TelemetrySettings};
use std::io::IsTerminal;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::prelude::*;

#[derive(Debug, thiserror::Error)]
#[error("telemetry.log: {0}")]
pub struct TelemetryError(#[from] ParseError);

/// Starts logging. A second call in one process changes nothing.
pub fn init(settings: &TelemetrySettings) -> Result<(), TelemetryError> {
    let filter: Targets = settings.log.parse()?;
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let layer = match settings.log_format {
        LogFormat::Text => stderr.boxed(),
        LogFormat::Json => stderr.json().flatten_event(true).with_ansi(false).boxed(),
    };
    // It fails if this process logs already, as a test may; the first subscriber stays.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Ok(())
}

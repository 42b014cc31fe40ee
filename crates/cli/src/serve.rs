//! `serve`: starts a server, prints its address, and stops it on SIGTERM or SIGINT, after the requests in flight.

use crate::output::print;
use anyhow::Context as _;
use boxoffice_app::config::{EventSinkName, Settings};
use boxoffice_app::wiring::{self, SystemClock};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut running = wiring::start(settings, Arc::new(SystemClock::default())).await?;
    let open = format!("boxoffice is open at http://{}/", reachable(running.address));
    // With the sink `log`, standard output carries events and nothing else.
    match running.settings.events.sink {
        EventSinkName::Log => eprintln!("{open}"),
        _ => print(&open)?,
    }
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = running.ended() => ended,
    };
    tracing::info!("stopping");
    running.stop().await;
    ended.context("the HTTP server ended unexpectedly")?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// An address that can be opened on this machine: for an unspecified one, the loopback address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_address_can_be_opened() {
        for (listen, open) in [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.7:8080", "10.0.0.7:8080")] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), open);
        }
    }
}

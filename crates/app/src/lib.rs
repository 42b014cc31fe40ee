//! The booking server: HTTP, command line, configuration and wiring around the engine.
//!
//! # Layout
//!
//! * [`cli`]: the subcommands. [`config`]: what they are told. [`telemetry`]: what they log.
//! * [`wiring`]: puts stores, engine and HTTP together; the only place that names concrete adapters.
//! * [`json`]: how JSON from outside is read. [`http`]: the public surface. [`season`]: something to book in a fresh store. [`lab`]: strategies compared.
//! * [`simulate`]: admission policies tried on a crowd that is not there.

pub mod cli;
pub mod config;
pub mod http;
mod json;
pub mod lab;
pub mod max_active;
mod page;
pub mod season;
pub mod simulate;
pub mod telemetry;
pub mod wiring;

/// A server makes and drops thousands of small things a second on every thread: the system's allocator has them wait for
/// one another, and looks for room again and again. Here, so that whatever runs a server (examples and tests, too) has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Before anything may want TLS. There is one provider in the tree: whoever was first has installed the same.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

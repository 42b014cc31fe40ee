//! The booking server: HTTP, configuration and wiring around the engine.
//!
//! # Layout
//!
//! * [`config`]: the settings. [`telemetry`]: the logs. [`crypto`]: TLS and tokens by ring. [`http`]: the public surface.
//!   [`json`]: how JSON of clients and files is read.
//! * [`wiring`]: puts stores, engine and HTTP together; the only place that names concrete adapters.
//! * [`season`]: the concerts of a fresh store. [`max_active`]: a setting that is a number or `"auto"`.

pub mod config;
pub mod crypto;
pub mod http;
pub mod json;
pub mod max_active;
pub mod season;
pub mod telemetry;
pub mod wiring;

/// A server allocates and frees thousands of small objects a second on every thread; in the system's allocator the threads
/// contend for them. It stands in the library, so that every program that runs a server has it, examples and tests too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

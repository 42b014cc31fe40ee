//! The booking server: HTTP, command line, configuration and wiring around the engine.

pub mod cli;
pub mod config;
pub mod http;
pub mod season;
pub mod telemetry;
pub mod wiring;

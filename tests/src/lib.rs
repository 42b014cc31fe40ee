//! What the tests of whole servers share: a server for each test, in this process or as the real binary, and people who
//! use it over HTTP.
//!
//! Every server listens on a free loopback port and keeps its file in a temporary folder, which is removed with it.
//! Tests wait for conditions with a bound ([`eventually`]); they move the clock instead of sleeping.

mod listener;
pub mod mutants;
mod person;
mod process;
pub mod proxy;
mod server;
pub mod services;
mod session;
pub mod sources;
pub mod tables;
mod wait;

pub use listener::{HANDSHAKE, Kind, Listener, Standing};
pub use person::{Answer, Person, client};
pub use process::Process;
pub use server::{Server, Setup, concert, seats};
pub use session::OpenTransaction;
pub use wait::{PATIENCE, at_once, eventually};

//! The configuration: the commented defaults of `deploy/boxoffice.toml`, a file, the environment, the command line.
//!
//! Every key is in the defaults, so that page is also the list of keys there are: any other one is refused, by name.
//! Whoever holds [`Settings`] that came from [`load`] holds checked ones. Nothing here is read again while running.
//!
//! # Layout
//!
//! * [`settings`]: the typed sections, and what the domain makes of them; [`values`]: switches and secrets.
//! * [`layers`]: where values come from and which one wins.
//! * [`check`]: the ranges, and which settings exclude one another.

mod check;
mod layers;
mod settings;
mod values;

pub use layers::{DEFAULTS, Layers};
pub use settings::*;
pub use values::{Secret, SecretUrl, Switch};

use boxoffice_domain::concert::Fault;
use std::fmt;
use std::path::PathBuf;

/// Why there is no configuration. Each says which key, file or variable is meant.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin} cannot be read: {reason}", origin = .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{origin}: unknown key `{key}`{hint}")]
    UnknownKey { origin: String, key: String, hint: String },
    #[error("{origin}: {reason}")]
    Malformed { origin: String, reason: String },
    /// Of the wrong type, or not one of the allowed names.
    #[error("{key}: {reason}")]
    Value { key: String, reason: String },
    #[error("{}", Faults(.0))]
    Invalid(Vec<Fault>),
}

/// One fault a line.
struct Faults<'a>(&'a [Fault]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {}", fault.field, fault.reason)?;
        }
        Ok(())
    }
}

/// Reads every layer, and checks what comes of them.
pub fn load(layers: &Layers) -> Result<Settings, ConfigError> {
    let settings = layers.merge()?;
    settings.check()?;
    Ok(settings)
}

impl Settings {
    /// The compiled-in defaults, which a test proves to be valid.
    pub fn defaults() -> Result<Self, ConfigError> {
        load(&Layers::default())
    }

    /// Everything that is wrong with it, or nothing.
    pub fn check(&self) -> Result<(), ConfigError> {
        let faults = check::faults(self);
        if faults.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(faults)) }
    }
}

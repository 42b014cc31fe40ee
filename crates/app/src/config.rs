//! The configuration: the commented defaults of `deploy/boxoffice.toml`, a file, the environment, the command line.
//!
//! Every key is in the defaults, so that page is also the list of keys: any other one is refused, by name.
//! [`Settings`] from [`load`] are checked. Nothing here is read again while running.
//!
//! # Layout
//!
//! * [`settings`]: the typed sections, and what the domain takes from them; [`values`]: switches and secrets.
//! * [`layers`]: where values come from and which one wins.
//! * [`check`]: the ranges, and which settings exclude one another. [`error`]: why a configuration is refused.

mod check;
mod error;
mod layers;
mod settings;
mod values;

pub use error::ConfigError;
pub use layers::{DEFAULTS, Layers};
pub use settings::*;
pub use values::{Secret, SecretUrl, Switch};

/// Reads every layer, and checks the result.
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

    /// Fails with every fault there is.
    pub fn check(&self) -> Result<(), ConfigError> {
        let faults = check::faults(self);
        if faults.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(faults)) }
    }
}

//! Why a configuration is refused.

use boxoffice_domain::concert::Fault;
use std::fmt;
use std::path::PathBuf;

/// Each names the key, file or variable at fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin} cannot be read: {reason}", origin = .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{origin}: unknown key `{key}`{hint}")]
    UnknownKey { origin: String, key: String, hint: String },
    #[error("{origin}: {reason}")]
    Malformed { origin: String, reason: String },
    /// The value has the wrong type, or is not one of the allowed names.
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

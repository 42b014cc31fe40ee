//! Where tokens come from, and the keys that sign them.

use crate::config::values::Secret;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// The server itself creates a user and a token for every caller that asks.
    Dev,
    Jwt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum JwtAlgorithm {
    HS256,
    RS256,
    ES256,
    EdDSA,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    pub mode: AuthMode,
    pub dev_force: bool,
    /// Empty: not checked.
    pub issuer: String,
    /// Empty: not checked.
    pub audience: String,
    pub leeway_s: u64,
    pub algorithm: JwtAlgorithm,
    pub hs256_secret: Secret,
    /// Empty: none.
    pub jwks_file: PathBuf,
    /// `kid:base64url secret`, the first one signs; empty: one kept in the store. Use [`AuthSettings::queue_keys`].
    pub queue_keys: Vec<Secret>,
}

/// A key that queue tokens are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueKey {
    pub kid: String,
    pub secret: Vec<u8>,
}

impl AuthSettings {
    pub fn issuer(&self) -> Option<&str> {
        Some(self.issuer.as_str()).filter(|issuer| !issuer.is_empty())
    }

    pub fn audience(&self) -> Option<&str> {
        Some(self.audience.as_str()).filter(|audience| !audience.is_empty())
    }

    pub fn jwks_file(&self) -> Option<&Path> {
        Some(self.jwks_file.as_path()).filter(|file| !file.as_os_str().is_empty())
    }

    /// The configured queue keys, without those that cannot be read: the check at start refuses them.
    pub fn queue_keys(&self) -> Vec<QueueKey> {
        self.queue_keys.iter().filter_map(|key| QueueKey::parse(key.expose())).collect()
    }
}

impl QueueKey {
    /// `kid:base64url secret`; `None` when it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        use base64::Engine as _;
        let (kid, secret) = text.split_once(':')?;
        let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(secret.trim_end_matches('=')).ok()?;
        Some(Self { kid: kid.to_owned(), secret })
    }
}

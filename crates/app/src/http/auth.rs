//! Bearer tokens (JWT), verified once and then cached until they expire.
//!
//! The algorithm is fixed by the configuration, never taken from the token. In development mode the server signs its
//! own tokens with a secret kept in the store, so they survive a restart. The user is always the token's `sub`.
//!
//! *Bounds.* [`CACHED_MAX`] tokens are cached by their hashes: some 150 bytes each, however long they are.
//! Time is the `Clock`'s.

use std::path::PathBuf;
use std::sync::Arc;

use boxoffice_domain::{Timestamp, UserId};
use boxoffice_ports::{Secrets, StoreError};
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::lane::is_lane;
use super::problem::Problem;
use crate::config::{AuthMode, JwtAlgorithm, Settings};
use crate::json::{self, Strict};

/// More than one instance's share of the buyers: checking a signature with each poll would cost more than the poll.
const CACHED_MAX: usize = 1 << 18;
/// The longest bearer token, bytes.
const TOKEN_MAX: usize = 8_192;
/// How long a token of development mode is valid, seconds.
const DEV_TTL_S: i64 = 30 * 86_400;
/// The value of the claim `role` that opens `/admin`.
const OPERATOR: &str = "operator";

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("auth.jwks_file: {path}: {reason}")]
    Jwks { path: PathBuf, reason: String },
    #[error("the secret of development mode cannot be read: {0}")]
    Secret(#[from] StoreError),
}

/// The caller that a token identifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) operator: bool,
    /// The lane that the token's issuer puts them in.
    pub(crate) lane: Option<Arc<str>>,
}

#[derive(Clone)]
struct Cached {
    identity: Identity,
    /// Unix seconds, the leeway included.
    until_s: i64,
}

#[derive(Deserialize)]
struct Claims {
    sub: Uuid,
    /// Seconds, perhaps with a fraction (RFC 7519).
    exp: f64,
    nbf: Option<f64>,
    role: Option<serde_json::Value>,
    lane: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct DevClaims<'a> {
    sub: Uuid,
    name: &'a str,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<&'a str>,
}

struct VerifyingKey {
    kid: Option<String>,
    key: DecodingKey,
}

/// See the module's opening.
pub(crate) struct Auth {
    keys: Vec<VerifyingKey>,
    validation: Validation,
    leeway_s: f64,
    /// Development mode's.
    signing: Option<EncodingKey>,
    /// By SHA-256: no other token can be made that has the same hash.
    cached: Cache<[u8; 32], Cached>,
}

impl Auth {
    pub(crate) async fn from_settings(settings: &Settings, secrets: &dyn Secrets) -> Result<Self, AuthError> {
        let auth = &settings.auth;
        if auth.mode == AuthMode::Dev {
            let secret = secrets.secret("dev_jwt".to_owned(), rand::random::<[u8; 32]>().to_vec()).await?;
            let keys = vec![VerifyingKey { kid: None, key: DecodingKey::from_secret(&secret) }];
            return Ok(Self::new(keys, validation(Algorithm::HS256, None, None), auth.leeway_s, Some(EncodingKey::from_secret(&secret))));
        }
        let (algorithm, keys) = match auth.algorithm {
            JwtAlgorithm::HS256 => {
                let key = DecodingKey::from_secret(auth.hs256_secret.expose().as_bytes());
                (Algorithm::HS256, vec![VerifyingKey { kid: None, key }])
            }
            JwtAlgorithm::RS256 => (Algorithm::RS256, read_jwks(settings, Algorithm::RS256)?),
            JwtAlgorithm::ES256 => (Algorithm::ES256, read_jwks(settings, Algorithm::ES256)?),
            JwtAlgorithm::EdDSA => (Algorithm::EdDSA, read_jwks(settings, Algorithm::EdDSA)?),
        };
        Ok(Self::new(keys, validation(algorithm, auth.issuer(), auth.audience()), auth.leeway_s, None))
    }

    fn new(keys: Vec<VerifyingKey>, validation: Validation, leeway_s: u64, signing: Option<EncodingKey>) -> Self {
        Self { keys, validation, leeway_s: leeway_s as f64, signing, cached: Cache::new(CACHED_MAX) }
    }

    /// The identity of a bearer token at `now`.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, Problem> {
        let name = Sha256::digest(token).into();
        if let Some(known) = self.cached.get(&name) {
            return if now.timestamp() < known.until_s { Ok(known.identity) } else { Err(expired()) };
        }
        let verified = self.check(token, now)?;
        self.cached.insert(name, verified.clone());
        Ok(verified.identity)
    }

    fn check(&self, token: &str, now: Timestamp) -> Result<Cached, Problem> {
        let invalid = || Problem::unauthenticated("the bearer token is not valid");
        if token.len() > TOKEN_MAX {
            return Err(invalid());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        // An extension that must be understood, and is not (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(invalid());
        }
        let kid = header.kid;
        let claims = self
            .keys_for(kid.as_deref())
            .find_map(|key| jsonwebtoken::decode::<Claims>(token, &key.key, &self.validation).ok())
            .ok_or_else(invalid)?
            .claims;
        let now_s = now.timestamp_millis() as f64 / 1_000.0;
        if claims.nbf.is_some_and(|from| now_s + self.leeway_s < from) {
            return Err(Problem::unauthenticated("the bearer token is not valid yet"));
        }
        if now_s >= claims.exp + self.leeway_s {
            return Err(expired());
        }
        let operator = claims.role.is_some_and(|role| role == OPERATOR);
        let lane = claims.lane.as_ref().and_then(serde_json::Value::as_str).filter(|lane| is_lane(lane)).map(Into::into);
        let identity = Identity { user: UserId(claims.sub), operator, lane };
        Ok(Cached { identity, until_s: (claims.exp + self.leeway_s).ceil() as i64 })
    }

    /// The keys that a token may be signed with: those with the name that it gives and those without one; all if it gives none.
    fn keys_for<'a>(&'a self, kid: Option<&'a str>) -> impl Iterator<Item = &'a VerifyingKey> {
        self.keys.iter().filter(move |key| key.kid.is_none() || kid.is_none() || key.kid.as_deref() == kid)
    }

    /// A token of development mode; `None` when that is off.
    pub(crate) fn sign_dev(&self, dev: &DevUser<'_>, now: Timestamp) -> Option<Result<String, Problem>> {
        let key = self.signing.as_ref()?;
        let iat = now.timestamp();
        let DevUser { user, name, operator, lane } = *dev;
        let claims = DevClaims { sub: user.0, name, iat, exp: iat + DEV_TTL_S, role: operator.then_some(OPERATOR), lane };
        Some(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, key).map_err(Problem::internal))
    }
}

/// The user that a token of development mode is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DevUser<'a> {
    pub(crate) user: UserId,
    pub(crate) name: &'a str,
    pub(crate) operator: bool,
    pub(crate) lane: Option<&'a str>,
}

fn expired() -> Problem {
    Problem::unauthenticated("the bearer token has expired")
}

/// Signature, issuer and audience; times are checked against the `Clock`.
fn validation(algorithm: Algorithm, issuer: Option<&str>, audience: Option<&str>) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    if let Some(issuer) = issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    if let Some(audience) = audience {
        validation.validate_aud = true;
        validation.set_audience(&[audience]);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    validation
}

/// The keys of `auth.jwks_file` that fit the algorithm.
fn read_jwks(settings: &Settings, algorithm: Algorithm) -> Result<Vec<VerifyingKey>, AuthError> {
    let path = settings.auth.jwks_file.clone();
    let fail = |reason: String| AuthError::Jwks { path: path.clone(), reason };
    let text = std::fs::read(&path).map_err(|error| fail(error.to_string()))?;
    let Strict(set) = json::read_file(&text).map_err(|fault| fail(fault.to_string()))?;
    let set: JwkSet = serde_json::from_value(set).map_err(|error| fail(error.to_string()))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        let fits = jwk.common.key_algorithm.is_none_or(|named| named.to_string().parse() == Ok(algorithm))
            && jwk.common.public_key_use.as_ref().is_none_or(|named| *named == PublicKeyUse::Signature);
        if let Ok(key) = DecodingKey::from_jwk(jwk)
            && fits
            && key.family() == algorithm.family()
        {
            keys.push(VerifyingKey { kid: jwk.common.key_id.clone(), key });
        }
    }
    if keys.is_empty() {
        return Err(fail(format!("holds no key for {algorithm:?}")));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::super::problem::Code;
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use chrono::{DateTime, TimeDelta};
    use serde_json::{Value, json};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn now() -> Timestamp {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000)
    }

    fn auth(issuer: Option<&str>, audience: Option<&str>) -> Auth {
        let keys = vec![VerifyingKey { kid: None, key: DecodingKey::from_secret(SECRET) }];
        Auth::new(keys, validation(Algorithm::HS256, issuer, audience), 30, Some(EncodingKey::from_secret(SECRET)))
    }

    fn token(algorithm: Algorithm, claims: &Value) -> String {
        crate::crypto::install();
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(SECRET)).unwrap()
    }

    /// By the right secret, with an algorithm that no configuration names.
    fn signed_hs512(claims: &Value) -> String {
        let message = format!("{}.{}", BASE64.encode(r#"{"alg":"HS512"}"#), BASE64.encode(claims.to_string()));
        let signature = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA512, SECRET), message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn claims(change: impl FnOnce(&mut Value)) -> Value {
        let mut claims = json!({"sub": Uuid::from_u128(7), "exp": 1_000_100, "iss": "i", "aud": "a"});
        change(&mut claims);
        claims
    }

    fn drop_claim(name: &str) -> Value {
        claims(|claims| {
            claims.as_object_mut().unwrap().remove(name);
        })
    }

    #[test]
    fn token_names_its_user_and_role() {
        let auth = auth(Some("i"), Some("a"));
        let identity = |claims: &Value| auth.verify(&token(Algorithm::HS256, claims), now()).unwrap();
        let user = UserId(Uuid::from_u128(7));
        assert_eq!(identity(&claims(|_| {})), Identity { user, operator: false, lane: None });
        assert_eq!(identity(&claims(|claims| claims["role"] = json!("operator"))), Identity { user, operator: true, lane: None });
        assert_eq!(identity(&claims(|claims| claims["role"] = json!(["operator"]))), Identity { user, operator: false, lane: None });
        assert_eq!(identity(&claims(|claims| claims["exp"] = json!(1_000_000.5))), Identity { user, operator: false, lane: None });
        for (lane, named) in [(json!("fans"), Some("fans")), (json!(["fans"]), None), (json!("x".repeat(65)), None), (json!(""), None)] {
            assert_eq!(identity(&claims(|claims| claims["lane"] = lane.clone())).lane.as_deref(), named, "{lane}");
        }
    }

    #[test]
    fn token_is_refused_for_each_thing_that_is_wrong() {
        let auth = auth(Some("i"), Some("a"));
        for (what, claims) in [
            ("no subject", drop_claim("sub")),
            ("no expiry", drop_claim("exp")),
            ("no issuer", drop_claim("iss")),
            ("no audience", drop_claim("aud")),
            ("another subject", claims(|claims| claims["sub"] = json!("ann"))),
            ("another issuer", claims(|claims| claims["iss"] = json!("x"))),
            ("another audience", claims(|claims| claims["aud"] = json!("x"))),
            ("expired", claims(|claims| claims["exp"] = json!(999_970))),
            ("not yet", claims(|claims| claims["nbf"] = json!(1_000_031))),
        ] {
            let refused = auth.verify(&token(Algorithm::HS256, &claims), now());
            assert_eq!(refused.map_err(|problem| problem.code()), Err(Code::Unauthenticated), "{what}");
        }
        let good = token(Algorithm::HS256, &claims(|_| {}));
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
        for broken in ["", "a.b.c", &good[..good.len() - 2], &unsigned, &signed_hs512(&claims(|_| {}))] {
            assert!(auth.verify(broken, now()).is_err(), "{broken}");
        }
    }

    #[test]
    fn leeway_is_30_seconds_either_way() {
        let auth = auth(None, None);
        let ok = |claims: &Value| auth.verify(&token(Algorithm::HS256, claims), now()).is_ok();
        assert!(ok(&claims(|claims| claims["exp"] = json!(999_971))));
        assert!(ok(&claims(|claims| claims["nbf"] = json!(1_000_030))));
    }

    #[test]
    fn a_cached_token_expires_as_well() {
        let auth = auth(None, None);
        let token = token(Algorithm::HS256, &claims(|_| {}));
        for _ in 0..2 {
            assert!(auth.verify(&token, now()).is_ok());
        }
        assert!(auth.verify(&token, now() + TimeDelta::seconds(129)).is_ok());
        assert!(auth.verify(&token, now() + TimeDelta::seconds(130)).is_err());
    }

    #[test]
    fn development_tokens_are_verified_by_the_same_rules() {
        let auth = auth(None, None);
        let user = UserId(Uuid::from_u128(9));
        let dev = DevUser { user, name: "Ann", operator: true, lane: Some("fans") };
        let token = auth.sign_dev(&dev, now()).unwrap().unwrap();
        assert_eq!(auth.verify(&token, now()).unwrap(), Identity { user, operator: true, lane: Some("fans".into()) });
    }

    #[test]
    fn key_set_gives_the_keys_that_sign_with_the_algorithm() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::defaults().unwrap();
        settings.auth.jwks_file = folder.path().join("jwks.json");
        let ed25519 = |kid: &str, more: Value| {
            let mut key = json!({"kty": "OKP", "crv": "Ed25519", "x": "E0Zn2v94sAiYhtQCuO18l4HcaWTnc0hjML0KlP6M-2g", "kid": kid});
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key
        };
        let read = |keys: Value| {
            std::fs::write(&settings.auth.jwks_file, json!({ "keys": keys }).to_string()).unwrap();
            read_jwks(&settings, Algorithm::EdDSA).map(|keys| keys.into_iter().filter_map(|key| key.kid).collect::<Vec<_>>())
        };
        let found = read(json!([
            ed25519("plain", json!({})),
            ed25519("signs", json!({"use": "sig", "alg": "EdDSA"})),
            ed25519("encrypts", json!({"use": "enc"})),
            ed25519("another algorithm", json!({"alg": "ES256"})),
            {"kty": "oct", "kid": "secret", "k": "AAAA"},
        ]));
        assert_eq!(found.unwrap(), ["plain", "signs"]);
        for none in [json!([]), json!([ed25519("encrypts", json!({"use": "enc"}))]), json!([{"kty": "oct", "k": "AAAA"}])] {
            assert!(matches!(read(none), Err(AuthError::Jwks { .. })));
        }
    }
}

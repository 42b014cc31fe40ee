//! How much one user, one address, or all clients may use of an instance at once: streams, requests in flight, and bytes
//! of bodies that are not whole yet.
//!
//! *Bounds.* Each count is kept only while it is above zero, so the tables grow only with what is open.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use boxoffice_domain::UserId;

use super::problem::{Code, Problem};
use crate::config::HttpSettings;

/// `Retry-After` for a user or an address at its limit, seconds.
const RETRY_S: u64 = 5;
/// Tables that the counts are spread over, so that workers seldom contend.
const SHARDS: usize = 16;
/// One user's requests in flight are at most this fraction of all connections.
const SHARE_OF_ONE_USER: usize = 4;

/// The overhead of a body's buffer beyond a quarter of the body, bytes.
const BODY_MARGIN: u64 = 16 << 10;

/// Amounts by key, none above a bound.
pub(crate) struct Counts<K> {
    /// 0: no bound, and nothing is counted.
    max: u64,
    shards: [Mutex<HashMap<K, u64>>; SHARDS],
    hasher: RandomState,
}

impl<K: Hash + Eq> Counts<K> {
    pub(crate) fn new(max: impl Into<u64>) -> Self {
        Self { max: max.into(), shards: Default::default(), hasher: RandomState::new() }
    }

    pub(crate) fn enter(&self, key: K) -> bool {
        self.add(key, 1)
    }

    pub(crate) fn leave(&self, key: K) {
        self.sub(key, 1);
    }

    /// False: it would exceed the bound, and nothing was added.
    fn add(&self, key: K, amount: u64) -> bool {
        if self.max == 0 {
            return true;
        }
        let mut shard = self.shard(&key);
        let count = shard.get(&key).copied().unwrap_or_default().saturating_add(amount);
        let fits = count <= self.max;
        if fits && count > 0 {
            shard.insert(key, count);
        }
        fits
    }

    fn sub(&self, key: K, amount: u64) {
        if self.max == 0 {
            return;
        }
        let mut shard = self.shard(&key);
        if let Some(count) = shard.get_mut(&key) {
            *count = count.saturating_sub(amount);
            if *count == 0 {
                shard.remove(&key);
            }
        }
    }

    fn shard(&self, key: &K) -> std::sync::MutexGuard<'_, HashMap<K, u64>> {
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

fn too_many(what: &str) -> Problem {
    Problem::new(Code::TooManyRequests, format!("too many {what} at once")).retry_after_s(RETRY_S)
}

/// See the module's opening.
pub(crate) struct Limits {
    streams: Counts<UserId>,
    requests: Counts<UserId>,
    bodies: Counts<()>,
    bodies_by_user: Counts<UserId>,
    bodies_by_address: Counts<IpAddr>,
}

impl Limits {
    /// `connections`: how many there may be in all.
    pub(crate) fn new(settings: &HttpSettings, connections: usize) -> Arc<Self> {
        let requests = match settings.requests_in_flight_per_user {
            0 => 0,
            max => u64::from(max).min((connections / SHARE_OF_ONE_USER).max(1) as u64),
        };
        // One body of the allowed size always fits, its buffer included.
        let one_body = settings.max_body_bytes as u64 / 4 * 5 + BODY_MARGIN;
        let at_least = |max: u64| if max == 0 { 0 } else { max.max(one_body) };
        Arc::new(Self {
            streams: Counts::new(settings.connections_per_user),
            requests: Counts::new(requests),
            bodies: Counts::new(at_least(settings.body_bytes_in_all)),
            bodies_by_user: Counts::new(at_least(settings.body_bytes_per_user)),
            bodies_by_address: Counts::new(at_least(settings.body_bytes_per_address)),
        })
    }

    /// Counts one more stream or socket of `user` until the permit is dropped.
    pub(crate) fn stream(self: &Arc<Self>, user: UserId) -> Result<StreamPermit, Problem> {
        if self.streams.enter(user) { Ok(StreamPermit { limits: self.clone(), user }) } else { Err(too_many("streams of one user")) }
    }

    /// Counts one more request of `user` until the permit is dropped.
    pub(crate) fn request(self: &Arc<Self>, user: UserId) -> Result<RequestPermit, Problem> {
        if self.requests.enter(user) { Ok(RequestPermit { limits: self.clone(), user }) } else { Err(too_many("requests of one user")) }
    }

    /// Counts the bytes of a body that is still arriving.
    pub(crate) fn body(self: &Arc<Self>, user: Option<UserId>, address: Option<IpAddr>) -> BodyBytes {
        BodyBytes { limits: self.clone(), user, address, bytes: 0 }
    }
}

/// An open stream.
pub(crate) struct StreamPermit {
    limits: Arc<Limits>,
    user: UserId,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.limits.streams.leave(self.user);
    }
}

/// A request that is not answered yet.
pub(crate) struct RequestPermit {
    limits: Arc<Limits>,
    user: UserId,
}

impl RequestPermit {
    pub(crate) fn user(&self) -> UserId {
        self.user
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.limits.requests.leave(self.user);
    }
}

/// The bytes in memory of one body.
pub(crate) struct BodyBytes {
    limits: Arc<Limits>,
    user: Option<UserId>,
    address: Option<IpAddr>,
    bytes: u64,
}

impl BodyBytes {
    /// The new number of bytes in memory, no smaller than before.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let Self { limits, user, address, .. } = self;
        let more = (bytes as u64).saturating_sub(self.bytes);
        if !limits.bodies.add((), more) {
            return Err(Problem::new(Code::Overloaded, "too many bytes of unfinished bodies are in memory"));
        }
        if user.is_some_and(|user| !limits.bodies_by_user.add(user, more)) {
            limits.bodies.sub((), more);
            return Err(too_many("bytes of one user's bodies"));
        }
        if address.is_some_and(|address| !limits.bodies_by_address.add(address, more)) {
            limits.bodies.sub((), more);
            if let Some(user) = *user {
                limits.bodies_by_user.sub(user, more);
            }
            return Err(too_many("bytes of one address's bodies"));
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        let Self { limits, user, address, bytes } = self;
        limits.bodies.sub((), *bytes);
        if let Some(user) = *user {
            limits.bodies_by_user.sub(user, *bytes);
        }
        if let Some(address) = *address {
            limits.bodies_by_address.sub(address, *bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use std::net::Ipv4Addr;
    use uuid::Uuid;

    fn limits(change: impl FnOnce(&mut HttpSettings)) -> Arc<Limits> {
        let mut settings = Settings::defaults().unwrap().http;
        change(&mut settings);
        Limits::new(&settings, 1_000)
    }

    fn user(of: u128) -> UserId {
        UserId(Uuid::from_u128(of))
    }

    #[test]
    fn streams_and_requests_of_one_user_are_bounded() {
        let limits = limits(|http| (http.connections_per_user, http.requests_in_flight_per_user) = (2, 3));
        let streams: Vec<_> = (0..2).map(|_| limits.stream(user(1)).unwrap()).collect();
        let requests: Vec<_> = (0..3).map(|_| limits.request(user(1)).unwrap()).collect();
        assert_eq!(limits.stream(user(1)).err().map(|problem| problem.code()), Some(Code::TooManyRequests));
        assert_eq!(limits.request(user(1)).err().map(|problem| problem.code()), Some(Code::TooManyRequests));
        assert!(limits.stream(user(2)).is_ok() && limits.request(user(2)).is_ok());
        drop((streams, requests));
        assert_eq!((limits.streams.keys(), limits.requests.keys()), (0, 0), "all are released");
        assert!(limits.stream(user(1)).is_ok() && limits.request(user(1)).is_ok());
    }

    #[test]
    fn one_user_has_at_most_a_quarter_of_all_connections_in_flight() {
        let limits = limits(|http| http.requests_in_flight_per_user = 1_000_000);
        let requests: Vec<_> = (0..1_000).filter_map(|_| limits.request(user(1)).ok()).collect();
        assert_eq!(requests.len(), 250);
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = limits(|http| (http.connections_per_user, http.requests_in_flight_per_user, http.body_bytes_per_user) = (0, 0, 0));
        let open: Vec<_> = (0..2_000).map(|_| (limits.stream(user(1)).unwrap(), limits.request(user(1)).unwrap())).collect();
        assert_eq!(open.len(), 2_000);
    }

    #[test]
    fn bodies_are_bounded_by_user_by_address_and_in_all() {
        let limits = limits(|http| {
            (http.body_bytes_in_all, http.body_bytes_per_user, http.body_bytes_per_address) = (100_000, 40_000, 60_000);
            http.max_body_bytes = 16_384;
        });
        let address = |of| Some(IpAddr::from(Ipv4Addr::new(127, 0, 0, of)));
        let code = |grown: Result<(), Problem>| grown.err().map(|problem| problem.code());
        let mut first = limits.body(Some(user(1)), address(1));
        assert_eq!((code(first.grow_to(30_000)), code(first.grow_to(40_000))), (None, None));
        assert_eq!(code(first.grow_to(41_000)), Some(Code::TooManyRequests), "of one user");
        let mut second = limits.body(Some(user(2)), address(1));
        assert_eq!(code(second.grow_to(21_000)), Some(Code::TooManyRequests), "of one address");
        assert_eq!(code(second.grow_to(20_000)), None);
        let mut third = limits.body(None, address(2));
        assert_eq!(code(third.grow_to(41_000)), Some(Code::Overloaded), "in all");
        assert_eq!(code(third.grow_to(40_000)), None, "a refusal counts for nothing");
        drop((first, second, third));
        assert_eq!((limits.bodies.keys(), limits.bodies_by_user.keys(), limits.bodies_by_address.keys()), (0, 0, 0), "all are released");
    }
}

//! How many connections may be open here at once, of one user and of one address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use boxoffice_domain::UserId;

use crate::config::HttpSettings;
use crate::http::problem::{Code, Problem};

/// When somebody who has too many open may ask again, seconds.
const RETRY_S: u64 = 5;

struct Counts<K> {
    /// 0: as many as there are.
    max: u32,
    open: Mutex<HashMap<K, u32>>,
}

impl<K: Hash + Eq> Counts<K> {
    fn new(max: u32) -> Self {
        Self { max, open: Mutex::default() }
    }

    fn enter(&self, key: K) -> bool {
        if self.max == 0 {
            return true;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key).or_default();
        let fits = *count < self.max;
        *count += u32::from(fits);
        fits
    }

    fn leave(&self, key: K) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&key);
            }
        }
    }
}

/// See the module's opening.
pub(crate) struct Connections {
    users: Counts<UserId>,
    addresses: Counts<IpAddr>,
}

impl Connections {
    pub(crate) fn new(settings: &HttpSettings) -> Arc<Self> {
        let HttpSettings { connections_per_user, connections_per_address, .. } = *settings;
        Arc::new(Self { users: Counts::new(connections_per_user), addresses: Counts::new(connections_per_address) })
    }

    /// One more, for as long as what it gives is held.
    pub(crate) fn count(self: &Arc<Self>, user: UserId, address: Option<IpAddr>) -> Result<Counted, Problem> {
        let too_many =
            |of| Problem::new(Code::TooManyRequests, format!("too many connections of one {of} are open")).retry_after_s(RETRY_S);
        if !self.users.enter(user) {
            return Err(too_many("user"));
        }
        // Given back with it, whatever comes of the address.
        let mut counted = Counted { connections: self.clone(), user, address: None };
        if let Some(address) = address {
            if !self.addresses.enter(address) {
                return Err(too_many("address"));
            }
            counted.address = Some(address);
        }
        Ok(counted)
    }
}

/// An open connection.
pub(crate) struct Counted {
    connections: Arc<Connections>,
    user: UserId,
    address: Option<IpAddr>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.users.leave(self.user);
        if let Some(address) = self.address {
            self.connections.addresses.leave(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use uuid::Uuid;

    #[test]
    fn connections_of_one_user_and_of_one_address_are_bounded() {
        let connections = Arc::new(Connections { users: Counts::new(2), addresses: Counts::new(3) });
        let user = |of| UserId(Uuid::from_u128(of));
        let address = |of| Some(IpAddr::from(Ipv4Addr::new(127, 0, 0, of)));
        let mut open: Vec<_> = (0..2).map(|_| connections.count(user(1), address(1)).unwrap()).collect();
        let refused = |of, at| connections.count(user(of), address(at)).err().map(|problem| problem.code());
        assert_eq!(refused(1, 2), Some(Code::TooManyRequests), "a third of one user");
        open.push(connections.count(user(2), address(1)).unwrap());
        assert_eq!(refused(3, 1), Some(Code::TooManyRequests), "a fourth of one address");
        assert_eq!(refused(3, 2), None, "a refusal counts for nobody");
        drop(open);
        assert_eq!((refused(1, 1), connections.users.open.lock().unwrap().len()), (None, 0), "given back");
    }

    #[test]
    fn zero_is_no_limit() {
        let connections = Arc::new(Connections { users: Counts::new(0), addresses: Counts::new(0) });
        let open: Vec<_> = (0..100).map(|_| connections.count(UserId(Uuid::nil()), None).unwrap()).collect();
        assert_eq!(open.len(), 100);
    }
}

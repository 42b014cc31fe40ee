//! Spare connections (see [`super::capacity`]). When all of a worker's are taken, a new one evicts the oldest that has
//! sent no request, so an idle client cannot keep one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use super::capacity::Capacity;
use super::connection::Connection;

/// The spare connections of one worker, the oldest first.
#[derive(Default)]
pub(super) struct SpareConnections(RefCell<VecDeque<Weak<Connection>>>);

impl SpareConnections {
    /// False: all spare connections are taken, and each has a request.
    pub(super) fn admit(&self, capacity: &Capacity, connection: &Rc<Connection>) -> bool {
        let mut taken = self.0.borrow_mut();
        taken.retain(|other| other.upgrade().is_some_and(|other| other.is_spare()));
        if taken.len() >= capacity.spare_per_worker {
            let idle = taken.iter().position(|other| other.upgrade().is_some_and(|other| other.evict()));
            match idle {
                Some(idle) => _ = taken.remove(idle),
                None => return false,
            }
        }
        taken.push_back(Rc::downgrade(connection));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[tokio::test]
    async fn the_oldest_idle_spare_connection_is_evicted_for_a_new_one() {
        let mut settings = Settings::defaults().unwrap().http;
        (settings.workers, settings.connections_max) = (2, 1);
        let capacity = Capacity::within(&settings, None);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut peers, mut connections, spares) = (Vec::new(), Vec::new(), SpareConnections::default());
        for _ in 0..=capacity.spare_per_worker + 1 {
            peers.push(tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let connection = Connection::new(listener.accept().await.unwrap().0, capacity.enter(None));
            assert!(!connection.is_spare() || spares.admit(&capacity, &connection));
            connections.push(connection);
        }
        // The first is no spare connection; the second is the oldest spare one.
        let closed: Vec<_> = (0..connections.len()).filter(|at| !connections[*at].is_open()).collect();
        assert_eq!((closed, capacity.open()), (vec![1], connections.len() - 1));
    }
}

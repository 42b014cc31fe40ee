//! The nodes of a Redlock: which of them vote, and a [`LockManager`] for just those.
//!
//! rslock asks all nodes of a manager at once and waits for the slowest, half a second for one that hangs. So each node
//! is probed every [`PROBE_EVERY`], and one that does not answer within [`PROBE_MAX`] is left out until it does.
//!
//! rslock counts the majority over the nodes of its manager. That must stay a majority of *all* nodes, or two processes
//! with different views could hold a lock each. So a node that is left out is replaced by an address at which there is
//! never a server: it refuses at once. With fewer healthy nodes than a majority there is no manager.
//!
//! *A node that restarted* has forgotten its votes, and could vote again for another owner while the first lease lasts.
//! Its run id shows that: it is left out until every lease from before has ended. Restarts within one probe, or before this
//! process first reached the node, remain undetected; nodes that write each command to disk do not have that gap.
//!
//! *Bounds.* One manager is kept for each set of healthy nodes, up to [`MANAGERS_MAX`]. Beyond it managers are made anew,
//! and connect anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxoffice_ports::{Kept, Source, Tasks, Traffic, WhenFailing};
use redis::Client;
use rslock::LockManager;
use tokio::time::{Instant, sleep, timeout};

use super::connect::Redis;
use super::failure::Failure;

/// How often a node is probed, counted from its last answer.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// A node that needs longer than this for an answer is left out. A healthy node answers hundreds of times faster.
const PROBE_MAX: Duration = Duration::from_millis(250);
/// Sets of healthy nodes for which a manager, with its connections, is kept.
const MANAGERS_MAX: usize = 64;
/// Nodes of one Redlock: more make it slower and no safer.
const NODES_MAX: usize = 15;
/// rslock tries once, since waiting is done outside; zero is not allowed.
const TRIES: u32 = 1;
const TRY_DELAY: Duration = Duration::from_millis(1);
/// There can be no socket below a path that is not a folder: connecting fails at once.
const ABSENT: &str = "unix:///dev/null/absent";

/// The nodes, and the tasks that probe them, which end when this is dropped.
pub(super) struct Quorum {
    nodes: Arc<Nodes>,
    _tasks: Vec<Kept>,
}

struct Nodes {
    clients: Vec<Client>,
    /// A separate connection to each: for probes and notes.
    probes: Vec<Redis>,
    absent: Client,
    /// One bit for each node: it votes.
    voting: AtomicU64,
    managers: Mutex<HashMap<u64, LockManager>>,
}

/// A majority that can be asked.
pub(super) struct Majority {
    pub(super) manager: LockManager,
    /// How many nodes are asked by one of its calls.
    pub(super) nodes: u64,
}

impl Quorum {
    /// All nodes vote until a probe finds otherwise. `lease` is how long a vote given before a restart may count.
    pub(super) fn start(urls: &[String], lease: Duration, traffic: &Arc<Traffic>, tasks: &dyn Tasks) -> Result<Self, Failure> {
        if urls.is_empty() || urls.len() > NODES_MAX {
            return Err(Failure::Address(format!("redis.redlock_nodes needs 1 to {NODES_MAX} nodes")));
        }
        // A node that is named twice would have two votes.
        if let Some(at) = (1..urls.len()).find(|at| urls[..*at].contains(&urls[*at])) {
            return Err(Failure::Address(format!("redis.redlock_nodes[{at}] is named twice")));
        }
        let node = |at: usize| move |_| Failure::Address(format!("redis.redlock_nodes[{at}] is not the address of a Redis node"));
        let open = |(at, url): (usize, &String)| Client::open(url.as_str()).map_err(node(at));
        let clients = urls.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        let probes = urls.iter().map(|url| Redis::open(std::slice::from_ref(url), traffic.clone())).collect::<Result<Vec<_>, _>>()?;
        let absent = Client::open(ABSENT).map_err(|_| Failure::Address("Redlock needs Unix sockets".to_owned()))?;
        let voting = AtomicU64::new((1 << urls.len()) - 1);
        let nodes = Arc::new(Nodes { clients, probes, absent, voting, managers: Mutex::default() });
        let tasks = (0..urls.len()).map(|at| {
            let nodes = nodes.clone();
            tasks.keep(format!("redlock.{at}"), WhenFailing::NotReady, move || watch(nodes.clone(), at, lease))
        });
        Ok(Self { _tasks: tasks.collect(), nodes })
    }

    /// A manager over the nodes that vote; `None` if they are no majority.
    pub(super) fn majority(&self) -> Option<Majority> {
        let voting = self.nodes.voting.load(Ordering::Relaxed);
        let nodes = u64::from(voting.count_ones());
        (nodes >= majority_of(self.nodes.clients.len())).then(|| Majority { manager: self.nodes.manager(voting), nodes })
    }

    /// A node to leave notes on: the same one for every process that sees the same nodes vote.
    pub(super) fn first(&self) -> Option<&Redis> {
        self.nodes.probes.get(self.nodes.voting.load(Ordering::Relaxed).trailing_zeros() as usize)
    }

    /// For an error: how many of how many nodes vote.
    pub(super) fn shortage(&self) -> String {
        let (voting, all) = (self.nodes.voting.load(Ordering::Relaxed).count_ones(), self.nodes.clients.len());
        format!("{voting} of {all} Redlock nodes can vote, {} are needed", majority_of(all))
    }
}

fn majority_of(nodes: usize) -> u64 {
    nodes as u64 / 2 + 1
}

impl Nodes {
    fn manager(&self, voting: u64) -> LockManager {
        let mut managers = self.managers.lock().unwrap_or_else(PoisonError::into_inner);
        if managers.len() >= MANAGERS_MAX && !managers.contains_key(&voting) {
            managers.clear();
        }
        let made = managers.entry(voting).or_insert_with(|| {
            let member = |(at, client): (usize, &Client)| if voting & (1 << at) == 0 { &self.absent } else { client }.clone();
            let mut manager = LockManager::from_clients(self.clients.iter().enumerate().map(member).collect());
            manager.set_retry(TRIES, TRY_DELAY);
            manager
        });
        made.clone()
    }

    fn set_voting(&self, at: usize, votes: bool) {
        let bit = 1 << at;
        let before = if votes { self.voting.fetch_or(bit, Ordering::Relaxed) } else { self.voting.fetch_and(!bit, Ordering::Relaxed) };
        if (before & bit != 0) != votes {
            tracing::warn!(node = at, votes, "a Redlock node votes now, or no longer");
        }
    }

    /// Its run id, if it answers.
    async fn run_id(&self, at: usize) -> Option<String> {
        let answer: String = self.probes[at].query(redis::cmd("INFO").arg("server")).await.ok()?;
        answer.lines().find_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim().to_owned())
    }
}

/// Probes one node, without end.
async fn watch(nodes: Arc<Nodes>, at: usize, lease: Duration) -> Result<(), Source> {
    let mut health = Health::new(lease);
    loop {
        let mut probe = std::pin::pin!(nodes.run_id(at));
        let answer = match timeout(PROBE_MAX, probe.as_mut()).await {
            Ok(answer) => answer,
            Err(_) => {
                nodes.set_voting(at, false);
                // For as long as its own bound allows, so that a dead connection is replaced.
                probe.await
            }
        };
        nodes.set_voting(at, answer.is_some_and(|run_id| health.answered(run_id, Instant::now())));
        sleep(PROBE_EVERY).await;
    }
}

/// Whether a node that answers may vote.
struct Health {
    lease: Duration,
    run_id: Option<String>,
    /// Until when votes from before its restart may count.
    until: Option<Instant>,
}

impl Health {
    fn new(lease: Duration) -> Self {
        Self { lease, run_id: None, until: None }
    }

    fn answered(&mut self, run_id: String, now: Instant) -> bool {
        if self.run_id.as_ref().is_some_and(|known| *known != run_id) {
            self.until = Some(now + self.lease);
        }
        self.run_id = Some(run_id);
        self.until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_ports::contract::supervisor;

    fn nodes(all: usize) -> Quorum {
        let urls: Vec<_> = (0..all).map(|at| format!("redis://127.0.0.{}:1", at + 1)).collect();
        let mut quorum = Quorum::start(&urls, Duration::from_secs(2), &Arc::default(), &*supervisor()).unwrap();
        quorum._tasks.clear();
        quorum
    }

    #[tokio::test]
    async fn only_a_majority_of_all_nodes_is_ever_asked() {
        for (all, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)] {
            let quorum = nodes(all);
            for voting in 0..1u64 << all {
                quorum.nodes.voting.store(voting, Ordering::Relaxed);
                let majority = quorum.majority();
                assert_eq!(majority.is_some(), voting.count_ones() >= needed, "{voting:b} of {all}");
                if let Some(majority) = majority {
                    assert_eq!(majority.nodes, u64::from(voting.count_ones()));
                    // rslock counts its quorum over these: all nodes, with an absent one for each that is left out.
                    let asked = format!("{:?}", majority.manager).matches("RestorableConnection {").count();
                    assert_eq!(asked, all);
                }
                assert!(quorum.nodes.managers.lock().unwrap().len() <= MANAGERS_MAX);
            }
        }
        let many = (0..=NODES_MAX).map(|at| format!("redis://h:{}", at + 1)).collect();
        for wrong in [vec![], many, vec!["redis://secret@h".to_owned(); 2], vec!["http://u:secret@h".to_owned()]] {
            let refused = Quorum::start(&wrong, Duration::from_secs(2), &Arc::default(), &*supervisor()).map(drop);
            assert!(refused.is_err_and(|error| !error.to_string().contains("secret")));
        }
    }

    #[tokio::test]
    async fn an_absent_node_refuses_at_once() {
        let client = Client::open(ABSENT).unwrap();
        let error = client.get_multiplexed_async_connection().await.map(drop).unwrap_err();
        assert!(error.is_io_error() && !error.is_timeout(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_restarted_does_not_vote_until_old_leases_have_ended() {
        let lease = Duration::from_secs(2);
        let (mut health, start) = (Health::new(lease), Instant::now());
        assert!(health.answered("a".to_owned(), start));
        assert!(health.answered("a".to_owned(), start), "silence alone is forgiven at the next answer");
        assert!(!health.answered("b".to_owned(), start));
        assert!(!health.answered("b".to_owned(), start + lease / 2));
        assert!(!health.answered("c".to_owned(), start + lease / 2), "and again");
        assert!(!health.answered("c".to_owned(), start + lease));
        assert!(health.answered("c".to_owned(), start + lease + lease / 2));
    }
}

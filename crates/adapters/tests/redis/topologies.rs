//! The locks on a Cluster, and behind Sentinel during a fail-over.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use boxoffice_adapters::redis::{PubSubLock, Redis, SpinLock};
use boxoffice_domain::Key;
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{Deadline, Lease, Lock, LockError};
use boxoffice_services::Redis as Server;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

/// Longer than anything here needs.
const LONG: Duration = Duration::from_secs(60);
/// Longer than any test waits: a key that is free again was given back.
const LEASE: Duration = Duration::from_secs(600);

fn key() -> Key {
    Key::Account(user())
}

fn connect(urls: &[String]) -> Redis {
    Redis::open(urls, Arc::default()).expect("an address")
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// Retries until it has the lock: a Cluster or a fail-over takes some time.
async fn take(lock: &dyn Lock, keys: Vec<Key>) -> Box<dyn Lease> {
    let deadline = Instant::now() + LONG;
    loop {
        match timeout(LONG, lock.acquire(keys.clone(), fresh(), Deadline::after(Duration::from_secs(1)))).await.expect("its wait ends") {
            Ok(lease) => return lease,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

pub(crate) mod cluster {
    use super::*;

    const NODES: usize = 3;
    const SLOTS: usize = 16_384;

    /// Three masters, one for all tests here.
    async fn nodes() -> &'static [Server] {
        static NODES_OF_ALL: OnceLock<Vec<Server>> = OnceLock::new();
        let started = NODES_OF_ALL.get_or_init(|| {
            let buses: Vec<String> = (0..NODES).map(|_| free_port().to_string()).collect();
            let start = |bus: &String| Server::start_with(&["--cluster-enabled", "yes", "--cluster-port", bus]).expect("Redis starts");
            let nodes: Vec<_> = buses.iter().map(start).collect();
            for (at, node) in nodes.iter().enumerate() {
                let (first, last) = (SLOTS * at / NODES, SLOTS * (at + 1) / NODES - 1);
                let own = node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).expect("an answer");
                let epoch = node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).expect("an answer");
                let (port, bus) = (nodes[0].port().to_string(), &buses[0]);
                let met = node.command(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).expect("an answer");
                assert_eq!([own, epoch, met], ["+OK"; 3]);
            }
            nodes
        });
        // Until each of them serves every slot: a node that does not know the place of a key answers with an error.
        let probe = connect(&started.iter().map(Server::url).collect::<Vec<_>>());
        let lock = SpinLock::new(probe, LEASE);
        for _ in 0..NODES * 10 {
            take(&lock, vec![key()]).await.release().await;
        }
        started
    }

    pub(crate) async fn urls() -> Vec<String> {
        nodes().await.iter().map(Server::url).collect()
    }

    mod spin {
        use super::*;

        async fn make() -> Arc<dyn Lock> {
            Arc::new(SpinLock::new(connect(&urls().await), LEASE))
        }

        boxoffice_ports::lock_contract!(make);
    }

    mod pubsub {
        use super::*;

        async fn make() -> Arc<dyn Lock> {
            Arc::new(PubSubLock::start(connect(&urls().await), LEASE, &*boxoffice_ports::contract::supervisor()))
        }

        boxoffice_ports::lock_contract!(make);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_instances_exclude_each_other_on_keys_of_different_nodes() {
        let urls = urls().await;
        let (one, other) = (
            PubSubLock::start(connect(&urls), LEASE, &*boxoffice_ports::contract::supervisor()),
            PubSubLock::start(connect(&urls), LEASE, &*boxoffice_ports::contract::supervisor()),
        );
        for _ in 0..20 {
            let mut keys: Vec<_> = (0..6).map(|_| key()).collect();
            keys.sort_unstable();
            let last = take(&one, vec![keys[5]]).await;
            let refused = other.acquire(keys.clone(), fresh(), Deadline::after(Duration::ZERO)).await;
            assert!(matches!(refused, Err(LockError::Busy { same_command: false })));
            // The keys that it had taken before it was refused are free again.
            take(&one, keys[..5].to_vec()).await.release().await;
            last.release().await;
            take(&other, keys).await.release().await;
        }
    }
}

pub(crate) mod sentinel {
    use super::*;

    /// A Sentinel that ends with this process: the shell around it waits on a pipe of this process.
    pub(crate) struct Sentinel {
        shell: Child,
        port: u16,
        _folder: TempDir,
    }

    impl Sentinel {
        pub(crate) fn start(master: &Server) -> Self {
            let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
            let file = folder.path().join("sentinel.conf");
            let settings = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n",
                folder.path().display(),
                master.port(),
            );
            std::fs::write(&file, settings).expect("written");
            let mut shell = Command::new("sh");
            shell.args(["-c", r#"redis-server "$0" --sentinel >/dev/null 2>&1 & pid=$!; read -r _; kill -9 "$pid""#]).arg(&file);
            let shell = shell.stdin(Stdio::piped()).spawn().expect("a shell");
            Self { shell, port, _folder: folder }
        }

        pub(crate) fn url(&self) -> String {
            format!("redis+sentinel://127.0.0.1:{}/shop", self.port)
        }

        /// How many replicas it knows.
        pub(crate) fn replicas(&self) -> usize {
            let asked = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                stream.write_all(b"SENTINEL replicas shop\r\n")?;
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).map(|_| line)
            });
            asked.ok().and_then(|line| line.trim().strip_prefix('*')?.parse().ok()).unwrap_or(0)
        }
    }

    impl Drop for Sentinel {
        fn drop(&mut self) {
            let _ = self.shell.stdin.take().map(|mut pipe| pipe.write_all(b"end\n"));
            let _ = self.shell.wait();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_locks_follow_the_master_in_a_fail_over() {
        let mut master = Server::start().expect("Redis starts");
        let replica = Server::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]).expect("Redis starts");
        let sentinel = Sentinel::start(&master);
        // The first of the list is absent, the second is asked.
        let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/shop", sentinel.port);
        let locks: [Box<dyn Lock>; 2] = [
            Box::new(SpinLock::new(connect(std::slice::from_ref(&url)), LEASE)),
            Box::new(PubSubLock::start(connect(&[url]), LEASE, &*boxoffice_ports::contract::supervisor())),
        ];
        let one = key();
        for lock in &locks {
            let lease = take(lock.as_ref(), vec![one]).await;
            assert_eq!(master.command(&["DBSIZE"]).expect("an answer"), ":1", "the key is on the master");
            lease.release().await;
        }
        // Sentinel can only promote a replica that it knows.
        let deadline = Instant::now() + LONG;
        master.command(&["SET", "followed", "yes"]).expect("an answer");
        while replica.command(&["EXISTS", "followed"]).expect("an answer") != ":1" {
            assert!(Instant::now() < deadline, "the replica does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while sentinel.replicas() == 0 {
            assert!(Instant::now() < deadline, "Sentinel does not find the replica");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        master.kill().expect("killed");
        for lock in &locks {
            let lease = take(lock.as_ref(), vec![one]).await;
            assert_eq!(replica.command(&["EXISTS", &format!("boxoffice:lock:{{account:{}}}", account(one))]).expect("an answer"), ":1");
            lease.release().await;
        }
    }

    fn account(key: Key) -> String {
        let Key::Account(user) = key else { panic!("an account") };
        user.to_string()
    }
}

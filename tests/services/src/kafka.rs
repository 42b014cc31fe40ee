//! A Kafka cluster: nodes that are broker and controller at once, from the jars that `tests/kafka/fetch` has Maven fetch.
//!
//! A node is ready when its log says so and it lists every node that runs: topics created earlier would have no copies
//! on the late ones. With more than one node a record has three copies (two with two nodes), and two of three must have
//! it; losing the majority of the nodes stops the cluster until they are back.

use crate::process::{Guarded, folder, free_ports, log, new_log, random, run, wait_while_running};
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// The settings that all nodes share.
const SETTINGS: &str = include_str!("../../kafka/server.properties");
const FETCH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kafka/fetch");
const JVM_OPTIONS: &str = concat!("@", env!("CARGO_MANIFEST_DIR"), "/../kafka/jvm.options");

/// The port answers some milliseconds before the broker is ready; this line of the log does not come too early.
const READY: &str = "Kafka Server started";
const PORT_TAKEN: &str = "Address already in use";

/// A machine for tests carries no more.
const NODES_MAX: usize = 9;
const COPIES_MAX: usize = 3;
/// Another process may take a port before its node does: then all start again on other ports, at most so many times.
const STARTS_MAX: usize = 3;
/// How long a node may take to answer a request: one that hangs never does.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A longer answer is not one to the request.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A running cluster. Killed, with its folders, when dropped or when this process ends.
pub struct Kafka {
    /// The folder that `tests/kafka/fetch` fills.
    files: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    id: i32,
    folder: PathBuf,
    port: u16,
    server: Option<Guarded>,
}

impl Kafka {
    /// One node.
    pub fn start() -> Result<Self> {
        Self::start_many(1)
    }

    /// As many nodes; with three the cluster survives the loss of one.
    pub fn start_many(nodes: usize) -> Result<Self> {
        ensure!((1..=NODES_MAX).contains(&nodes), "1 to {NODES_MAX} nodes");
        let files = PathBuf::from(run(&[FETCH.to_owned()])?.trim());
        for start in 1.. {
            let mut cluster = Self { files: files.clone(), nodes: new_nodes(&files, nodes)? };
            match cluster.restart_all() {
                Err(_) if start < STARTS_MAX && cluster.nodes.iter().any(|node| log(&node.folder).contains(PORT_TAKEN)) => {}
                result => return result.map(|()| cluster),
            }
        }
        bail!("Kafka did not start")
    }

    /// The one node of this process, for tests that do not stop it and share no topic.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().expect("Kafka starts"))
    }

    /// The addresses of all nodes, `127.0.0.1:PORT` separated by commas, whether they run or not.
    pub fn brokers(&self) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect::<Vec<_>>().join(",")
    }

    /// `kill -9` of one node, the first of which is 0.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.node_mut(node)?.server.take().map_or(Ok(()), Guarded::kill)
    }

    /// `kill -9` of all.
    pub fn kill_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|node| self.kill(node))
    }

    /// Starts a node again on its data and ports, after [`Kafka::kill`]. Waits until all that run list each other, unless
    /// they are no majority: then they never do.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        let files = self.files.clone();
        self.node_mut(node)?.spawn(&files)?;
        if self.running().count() * 2 > self.nodes.len() { self.wait() } else { Ok(()) }
    }

    /// Starts every node that does not run.
    pub fn restart_all(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.server.is_none()) {
            node.spawn(&self.files)?;
        }
        self.wait()
    }

    /// Stops everything a node does, as if its machine hung.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.signal(node, "STOP")
    }

    pub fn resume(&self, node: usize) -> Result<()> {
        self.signal(node, "CONT")
    }

    /// The process ids of the nodes that run, in their order.
    pub fn pids(&self) -> Vec<u32> {
        self.running().map(|(server, _)| server.pid()).collect()
    }

    fn signal(&self, node: usize, signal: &str) -> Result<()> {
        let node = self.nodes.get(node).with_context(|| format!("there is no node {node}"))?;
        node.server.as_ref().context("the node was killed")?.signal(signal)
    }

    fn node_mut(&mut self, node: usize) -> Result<&mut Node> {
        self.nodes.get_mut(node).with_context(|| format!("there is no node {node}"))
    }

    fn running(&self) -> impl Iterator<Item = (&Guarded, &Node)> {
        self.nodes.iter().filter_map(|node| Some((node.server.as_ref()?, node)))
    }

    /// Waits until every node that runs is ready and lists every node that runs.
    fn wait(&self) -> Result<()> {
        let ids: Vec<_> = self.running().map(|(_, node)| node.id).collect();
        let mut late: Vec<_> = self.running().map(|(_, node)| node).collect();
        let servers: Vec<_> = self.running().map(|(server, node)| (server, node.folder.as_path())).collect();
        wait_while_running("Kafka (`tests/run --setup` installs what it needs)", &servers, || {
            late.retain(|node| {
                !(log(&node.folder).contains(READY)
                    && brokers_listed_by(node.port).is_ok_and(|listed| ids.iter().all(|id| listed.contains(id))))
            });
            late.is_empty()
        })
    }
}

impl Node {
    fn spawn(&mut self, files: &Path) -> Result<()> {
        if self.server.is_some() {
            bail!("node {} is running", self.id);
        }
        new_log(&self.folder)?;
        let mut command = vec!["java".to_owned(), JVM_OPTIONS.to_owned()];
        let archive = files.join("kafka.jsa");
        if archive.exists() {
            command.push(format!("-XX:SharedArchiveFile={}", archive.display()));
        }
        // The JVM, not a shell, expands the `*`.
        command.extend(["-cp".to_owned(), files.join("libs").join("*").display().to_string(), "kafka.Kafka".to_owned()]);
        command.push(self.folder.join("server.properties").display().to_string());
        self.server = Some(Guarded::start(&self.folder, &command)?);
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The guard removes the folder of a node that runs, but not of one that was killed.
        if self.server.is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Nodes that do not run yet, each with settings and an empty, formatted log.
fn new_nodes(files: &Path, count: usize) -> Result<Vec<Node>> {
    let ports = free_ports(2 * count)?;
    let (brokers, controllers) = ports.split_at(count);
    let voters = (1..).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
    // A node of another cluster that connects to a port of this one is refused by its cluster id.
    let cluster = format!("{:016x}boxoff", random());
    let mut nodes = Vec::with_capacity(count);
    for (id, (&port, controller)) in (1..).zip(brokers.iter().zip(controllers)) {
        let node = Node { id, folder: folder("boxoffice-kafka-")?, port, server: None };
        let data = node.folder.join("data");
        std::fs::create_dir(&data)?;
        std::fs::copy(files.join("bootstrap.checkpoint"), data.join("bootstrap.checkpoint")).context("bootstrap.checkpoint")?;
        std::fs::write(data.join("meta.properties"), format!("version=1\ncluster.id={cluster}\nnode.id={id}\n"))?;
        let own = format!(
            "{SETTINGS}\nnode.id={id}\ncontroller.quorum.voters={voters}\nlisteners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=BROKER://127.0.0.1:{port}\nlog.dirs={}\n{}",
            data.display(),
            copies(count)
        );
        std::fs::write(node.folder.join("server.properties"), own)?;
        nodes.push(node);
    }
    Ok(nodes)
}

/// The settings of how many copies a record has, and how many of them an acknowledgement needs.
fn copies(nodes: usize) -> String {
    let copies = nodes.min(COPIES_MAX);
    let acknowledged = copies.div_ceil(2);
    let topic =
        format!("default.replication.factor={copies}\nmin.insync.replicas={acknowledged}\noffsets.topic.replication.factor={copies}\n");
    let of = |name| format!("{name}.replication.factor={copies}\n{name}.min.isr={acknowledged}\n");
    topic + &of("transaction.state.log") + &of("share.coordinator.state.topic")
}

/// Asks the broker on a port which brokers there are: Metadata, version 0, of no topic that exists.
fn brokers_listed_by(port: u16) -> Result<Vec<i32>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    // Key 3, version 0, correlation 0, an empty client id; one topic, because none would mean all.
    let request = [&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0][..], &1_i32.to_be_bytes(), &1_i16.to_be_bytes(), b"-"].concat();
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let length = usize::try_from(read_i32(&mut stream)?)?;
    ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let mut rest = answer.as_slice();
    // The correlation, then for each broker its id, its host and its port.
    let (_, count) = (read_i32(&mut rest)?, read_i32(&mut rest)?);
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(read_i32(&mut rest)?);
        let mut host = [0; 2];
        rest.read_exact(&mut host)?;
        rest = rest.get(usize::from(u16::from_be_bytes(host))..).context("a short answer")?;
        read_i32(&mut rest)?;
    }
    Ok(ids)
}

fn read_i32(from: &mut impl Read) -> Result<i32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(i32::from_be_bytes(bytes))
}

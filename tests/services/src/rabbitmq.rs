//! A RabbitMQ node, from Debian's package or another installation of the same layout.
//!
//! It runs without Erlang's port mapper, a daemon that would outlive it: the port on which [`RabbitMq::command`] reaches
//! the node is chosen here and given to both sides. It listens on the loopback address alone, reads nothing of the
//! machine's configuration, loads no plugin, and writes into its folder alone, its cookie included.

use crate::process::{Guarded, folder, free_ports, log, new_log, random, run, wait_until, wait_while_running};
use anyhow::{Context, Result, bail, ensure};
use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The environment variable for the folder of another installation, the one that holds `sbin`.
const HOME_VARIABLE: &str = "BOXOFFICE_RABBITMQ_HOME";

/// A node finds its data again under the same name only.
const NODE: &str = "boxoffice@127.0.0.1";
/// Nothing listens on this port, so that no port mapper is found.
const NO_PORT_MAPPER: &str = "ERL_EPMD_PORT=1";
/// Two threads that do not spin while there is nothing to do: several nodes share the machine's cores.
const THREADS: &str = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none";

const READY: &str = "Server startup complete";
const PORT_TAKEN: &str = "eaddrinuse";
/// The first bytes of an AMQP client.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The first byte of a method frame, such as the server's `connection.start`.
const METHOD_FRAME: u8 = 1;

/// Another process may take a port before the node does: then it starts again on others, at most so many times.
const STARTS_MAX: usize = 3;
/// How long the node may take to greet a client: one that hangs never does.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A running node. Killed, with its folder, when dropped or when this process ends.
pub struct RabbitMq {
    home: PathBuf,
    folder: PathBuf,
    port: u16,
    /// The port for other Erlang nodes, such as `rabbitmqctl`.
    distribution: u16,
    cookie: String,
    server: Option<Guarded>,
}

impl RabbitMq {
    pub fn start() -> Result<Self> {
        let home = find()?;
        for start in 1.. {
            let mut node = Self::new(home.clone())?;
            match node.restart() {
                Err(_) if start < STARTS_MAX && log(&node.folder).contains(PORT_TAKEN) => {}
                result => return result.map(|()| node),
            }
        }
        bail!("RabbitMQ did not start")
    }

    /// The one node of this process, for tests that neither stop nor alarm it and share no queue.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<RabbitMq> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().expect("RabbitMQ starts"))
    }

    fn new(home: PathBuf) -> Result<Self> {
        let folder = folder("boxoffice-rabbitmq-")?;
        let (ports, cookie) = (free_ports(2)?, format!("{:016x}", random()));
        let secret = folder.join(".erlang.cookie");
        std::fs::write(&secret, &cookie)?;
        // Erlang refuses a cookie that other users may read.
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o400))?;
        std::fs::write(folder.join("plugins"), "[].\n")?;
        // Erlang terms: the usual format would cost a second, because the schema of every plugin checks it.
        std::fs::write(folder.join("advanced.config"), format!("[{{rabbit, [{{tcp_listeners, [{{\"127.0.0.1\", {}}}]}}]}}].\n", ports[0]))?;
        Ok(Self { home, folder, port: ports[0], distribution: ports[1], cookie, server: None })
    }

    /// Starts it again on the same data and ports, after [`RabbitMq::kill`]; recovery included.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "RabbitMQ is running");
        new_log(&self.folder)?;
        let arguments = format!(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -name {NODE} -erl_epmd_port {} -kernel inet_dist_use_interface {{127,0,0,1}} {THREADS}",
            self.distribution
        );
        // With these no shell stays between the guard and the node.
        let own = [arguments, "RABBITMQ_ALLOW_INPUT=1".to_owned(), "ERL_ZFLAGS=-start_epmd false".to_owned()];
        let server = Guarded::start(&self.folder, &self.program("rabbitmq-server", &own))?;
        let servers = [(&server, self.folder.as_path())];
        let started = wait_while_running("RabbitMQ", &servers, || log(&self.folder).contains(READY) && self.greets().is_ok());
        self.server = Some(server);
        started
    }

    /// Makes it write its tables of queues and streams to the disk. It does so from time to time; if it is killed before,
    /// it forgets the leader of a new quorum queue or stream.
    pub fn write_down(&self) -> Result<()> {
        self.eval("[dets:sync(Table) || Table <- dets:all()]").map(drop)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), Guarded::kill)
    }

    /// Stops everything it does, as if the machine hung.
    pub fn pause(&self) -> Result<()> {
        self.running()?.signal("STOP")
    }

    pub fn resume(&self) -> Result<()> {
        self.running()?.signal("CONT")
    }

    /// The process id of the server.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Runs `rabbitmqctl`; its output, without comments.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        // `rabbitmqctl` is an Erlang node, too; this one listens nowhere.
        let own = [
            format!("RABBITMQ_CTL_ERL_ARGS=-erl_epmd_port {}", self.distribution),
            "ERL_ZFLAGS=-start_epmd false -dist_listen false".to_owned(),
        ];
        let mut command = self.program("rabbitmqctl", &own);
        command.extend(["--quiet"].iter().chain(words).map(|word| (*word).to_owned()));
        run(&command)
    }

    /// Evaluates an Erlang expression in the node, in milliseconds where `rabbitmqctl eval` would take half a second.
    pub fn eval(&self, expression: &str) -> Result<String> {
        let address = format!("127.0.0.1:{}", self.distribution);
        let mut call = Command::new("erl_call");
        call.args(["-c", &self.cookie, "-address", &address, "-e"]).env("HOME", &self.folder);
        let mut call = call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("erl_call")?;
        call.stdin.take().context("no standard input")?.write_all(format!("{expression}.\n").as_bytes())?;
        let output = call.wait_with_output()?;
        let answer = String::from_utf8_lossy(&output.stdout);
        match answer.trim().strip_prefix("{ok, ").and_then(|answer| answer.strip_suffix('}')) {
            Some(value) if output.status.success() => Ok(value.to_owned()),
            _ => bail!("{expression}: {answer}{}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Closes every client's connection, as an operator would.
    pub fn close_all_connections(&self) -> Result<()> {
        self.eval("rabbit_networking:close_connections(rabbit_networking:connections(), <<\"closed for a test\">>)").map(drop)
    }

    /// Sets the node's memory limit to zero, or back: in between the broker blocks publishers, and notifies them by
    /// `connection.blocked`.
    pub fn set_memory_alarm(&self, on: bool) -> Result<()> {
        let limit = if on { "{ok, 0}" } else { "application:get_env(rabbit, vm_memory_high_watermark)" };
        self.eval(&format!("{{ok, Limit}} = {limit}, vm_memory_monitor:set_vm_memory_high_watermark(Limit)"))?;
        wait_until("the memory alarm", &self.folder, || {
            self.eval("rabbit_alarm:get_alarms() =/= []").is_ok_and(|alarmed| alarmed == on.to_string())
        })
    }

    /// A program of the installation with the settings of this node.
    fn program(&self, name: &str, own: &[String]) -> Vec<String> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let settings = [
            format!("HOME={}", self.folder.display()),
            "RABBITMQ_CONF_ENV_FILE=/dev/null".to_owned(),
            format!("RABBITMQ_NODENAME={NODE}"),
            "RABBITMQ_USE_LONGNAME=true".to_owned(),
            format!("RABBITMQ_MNESIA_BASE={}", path("data")),
            format!("RABBITMQ_LOG_BASE={}", path("logs")),
            "RABBITMQ_LOGS=-".to_owned(),
            format!("RABBITMQ_ENABLED_PLUGINS_FILE={}", path("plugins")),
            // This file does not exist.
            format!("RABBITMQ_CONFIG_FILE={}", path("rabbitmq")),
            format!("RABBITMQ_ADVANCED_CONFIG_FILE={}", path("advanced.config")),
            format!("RABBITMQ_GENERATED_CONFIG_DIR={}", path("generated")),
            format!("RABBITMQ_PID_FILE={}", path("pid")),
            format!("RABBITMQ_DIST_PORT={}", self.distribution),
            "RABBITMQ_SCHEDULER_BIND_TYPE=u".to_owned(),
            format!("ERL_CRASH_DUMP={}", path("crash")),
            NO_PORT_MAPPER.to_owned(),
        ];
        let program = self.home.join("sbin").join(name).display().to_string();
        ["env".to_owned()].into_iter().chain(settings).chain(own.iter().cloned()).chain([program]).collect()
    }

    /// Whether it speaks AMQP to a client.
    fn greets(&self) -> Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.write_all(GREETING)?;
        let mut first = [0; 1];
        stream.read_exact(&mut first)?;
        ensure!(first[0] == METHOD_FRAME, "no AMQP: {first:?}");
        Ok(())
    }

    fn running(&self) -> Result<&Guarded> {
        self.server.as_ref().context("RabbitMQ was killed")
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // The guard removes the folder of a node that runs, but not of one that was killed.
        if self.server.is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The newest of Debian's installations, or the one on the path.
fn find() -> Result<PathBuf> {
    // Debian's `rabbitmq-server` on the path is a wrapper for the machine's one node, without `rabbitmq-env` beside it.
    let is_home = |home: &PathBuf| home.join("sbin/rabbitmq-server").exists() && home.join("sbin/rabbitmq-env").exists();
    if let Some(home) = env::var_os(HOME_VARIABLE).map(PathBuf::from) {
        ensure!(is_home(&home), "{HOME_VARIABLE}: there is no RabbitMQ server in {}", home.display());
        return Ok(home);
    }
    let installed = std::fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let version = |home: &PathBuf| -> Option<Vec<u32>> {
        let (_, version) = home.file_name()?.to_str()?.rsplit_once('-')?;
        version.split('.').map(|part| part.parse().ok()).collect()
    };
    let newest = installed.filter(is_home).max_by_key(version);
    let on_path = || env::split_paths(&env::var_os("PATH")?).filter_map(|sbin| sbin.parent().map(Path::to_path_buf)).find(is_home);
    newest.or_else(on_path).context("there is no RabbitMQ server here: `tests/run --setup` installs it, or says how to")
}

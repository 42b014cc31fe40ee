//! A PostgreSQL cluster.

use crate::process::{Guarded, folder, free_port, run, wait_while_running};
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The environment variable for the `bin` folder of another installation than Debian's or the one on the path.
const BIN_VARIABLE: &str = "BOXOFFICE_POSTGRES_BIN";

/// How often, and after which pause, the start of a cluster is tried again.
const RESTARTS_MAX: u32 = 50;
const RESTART_AFTER: Duration = Duration::from_millis(200);

/// For tests: commits survive a crash of the server, but not of the machine.
const QUICK: &[&str] = &["fsync=off", "full_page_writes=off", "shared_buffers=128MB"];
/// For measuring: commits are on the disk, and what is read often fits into memory.
const DURABLE: &[&str] = &["fsync=on", "shared_buffers=1GB", "max_wal_size=8GB", "wal_compression=off", "checkpoint_timeout=30min"];

/// A running cluster. Killed, with its folder, when dropped or when this process ends.
pub struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    settings: &'static [&'static str],
    server: Option<Guarded>,
    databases: AtomicU32,
    templates: Mutex<HashSet<String>>,
}

impl Postgres {
    /// A cluster for tests: it survives its own crash, but not the machine's.
    pub fn start() -> Result<Self> {
        Self::start_with(QUICK)
    }

    /// A cluster for measuring: its commits are on the disk.
    pub fn start_durable() -> Result<Self> {
        Self::start_with(DURABLE)
    }

    /// The one cluster of this process, for tests that do not stop it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().expect("PostgreSQL starts"))
    }

    fn start_with(settings: &'static [&'static str]) -> Result<Self> {
        let bin = find()?;
        let folder = folder("boxoffice-postgres-")?;
        let data = folder.join("data");
        if is_root()? {
            run(&["chown".to_owned(), "postgres".to_owned(), folder.display().to_string()])?;
        }
        let program = bin.join("initdb").display().to_string();
        let options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--pgdata"];
        let mut initdb = as_postgres()?;
        initdb.push(program);
        initdb.extend(options.map(str::to_owned));
        initdb.push(data.display().to_string());
        run(&initdb)?;
        let (databases, templates) = (AtomicU32::new(0), Mutex::default());
        let mut cluster = Self { bin, folder, port: free_port()?, settings, server: None, databases, templates };
        cluster.restart()?;
        Ok(cluster)
    }

    /// Starts the server again on the same data and port, after [`Postgres::kill`]; recovery included.
    pub fn restart(&mut self) -> Result<()> {
        let data = self.folder.join("data");
        let mut command = as_postgres()?;
        command.extend([self.bin.join("postgres").display().to_string(), "-D".to_owned(), data.display().to_string()]);
        let sockets = format!("unix_socket_directories={}", self.folder.display());
        let port = format!("port={}", self.port);
        let own = ["listen_addresses=127.0.0.1", "max_connections=300", "log_min_messages=fatal", &sockets, &port];
        for setting in own.iter().chain(self.settings) {
            command.extend(["-c".to_owned(), (*setting).to_owned()]);
        }
        let status = data.join("postmaster.pid");
        let is_ready = || std::fs::read_to_string(&status).is_ok_and(|text| text.lines().any(|line| line.trim() == "ready"));
        // A killed server may not be gone yet, and then a new one refuses to start.
        for tries_left in (0..RESTARTS_MAX).rev() {
            let server = Guarded::start(&self.folder, &command)?;
            match wait_while_running("PostgreSQL", &[(&server, &self.folder)], is_ready) {
                Err(_) if tries_left > 0 && !server.is_running() => {
                    // If it were dropped, its guard would remove the folder.
                    server.kill()?;
                    std::thread::sleep(RESTART_AFTER);
                }
                started => {
                    self.server = Some(server);
                    return started;
                }
            }
        }
        Ok(())
    }

    /// `kill -9`, of the server and of what it runs.
    pub fn kill(&mut self) -> Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        // The children first: the next start would have to wait for them.
        server.signal("KILL")?;
        server.kill()?;
        // The file may still say that the server is ready.
        std::fs::remove_file(self.folder.join("data").join("postmaster.pid")).context("postmaster.pid")
    }

    /// Stops everything it does, as if the machine hung.
    pub fn pause(&self) -> Result<()> {
        // Twice: a child may have been forked after the children were listed and before their parent stopped.
        self.running()?.signal("STOP")?;
        self.running()?.signal("STOP")
    }

    pub fn resume(&self) -> Result<()> {
        self.running()?.signal("CONT")
    }

    fn running(&self) -> Result<&Guarded> {
        self.server.as_ref().context("PostgreSQL was killed")
    }

    /// The process id of the server.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its programs, such as `pgbench` and `psql`.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The URL of the database that is always there.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database; its URL.
    pub fn database(&self) -> Result<String> {
        self.create("template0")
    }

    /// Creates a copy of a database that [`Postgres::template`] created; its URL.
    pub fn database_like(&self, template: &str) -> Result<String> {
        self.create(template)
    }

    /// Creates the database `name` once. `make` gets its URL, fills it, and must leave no connection open.
    pub fn template(&self, name: &str, make: impl FnOnce(&str)) -> Result<()> {
        let mut made = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if made.contains(name) {
            return Ok(());
        }
        self.sql(&format!("CREATE DATABASE {name} TEMPLATE template0"))?;
        make(&self.url_of(name));
        made.insert(name.to_owned());
        Ok(())
    }

    fn create(&self, template: &str) -> Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name} TEMPLATE {template}"))?;
        Ok(self.url_of(&name))
    }

    /// Runs statements in the database that is always there; the output of `psql`, without headings.
    pub fn sql(&self, statements: &str) -> Result<String> {
        self.sql_in(&self.url(), statements)
    }

    /// Runs statements in the database at `url`.
    pub fn sql_in(&self, url: &str, statements: &str) -> Result<String> {
        let psql = self.bin.join("psql").display().to_string();
        let options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statements];
        run(&[psql].into_iter().chain(options.map(str::to_owned)).collect::<Vec<_>>())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The guard does the rest when its pipe closes. That of a killed server has left the folder.
        if let Some(server) = self.server.take() {
            let _ = server.signal("KILL");
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The newest of Debian's installations, or the one on the path.
fn find() -> Result<PathBuf> {
    let is_bin = |bin: &PathBuf| bin.join("postgres").exists() && bin.join("initdb").exists();
    if let Some(bin) = env::var_os(BIN_VARIABLE).map(PathBuf::from) {
        return if is_bin(&bin) { Ok(bin) } else { bail!("{BIN_VARIABLE}: there is no PostgreSQL server in {}", bin.display()) };
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |bin: &PathBuf| bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = installed.map(|version| version.path().join("bin")).filter(is_bin).max_by_key(version);
    let on_path = || env::split_paths(&env::var_os("PATH")?).find(is_bin);
    newest.or_else(on_path).context("there is no PostgreSQL server here: `tests/run --setup` installs it, or says how to")
}

fn is_root() -> Result<bool> {
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}

/// PostgreSQL refuses to run as root.
fn as_postgres() -> Result<Vec<String>> {
    let setpriv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"];
    Ok(if is_root()? { setpriv.map(str::to_owned).to_vec() } else { Vec::new() })
}

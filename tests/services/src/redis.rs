//! One Redis node.

use crate::process::{Guarded, folder, free_port, wait_until};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// How long the node may take to answer a command of this crate.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A running node, in memory alone. Killed, with its folder, when dropped or when this process ends.
pub struct Redis {
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
    server: Option<Guarded>,
}

impl Redis {
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// With options of `redis-server`, such as `--cluster-enabled yes`.
    pub fn start_with(options: &[&str]) -> Result<Self> {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut node = Self { folder: folder("boxoffice-redis-")?, port: free_port()?, options, server: None };
        node.restart()?;
        Ok(node)
    }

    /// The one node of this process, for tests that neither stop nor flush it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().expect("Redis starts"))
    }

    /// Starts it again on the same port, after [`Redis::kill`], and empty.
    pub fn restart(&mut self) -> Result<()> {
        let folder = self.folder.display().to_string();
        let port = self.port.to_string();
        let own = ["redis-server", "--port", &port, "--bind", "127.0.0.1", "--dir", &folder, "--save", "", "--appendonly", "no"];
        let command: Vec<String> = own.iter().map(|part| (*part).to_owned()).chain(self.options.iter().cloned()).collect();
        self.server = Some(Guarded::start(&self.folder, &command)?);
        let ready = || self.command(&["PING"]).is_ok_and(|answer| answer == "+PONG");
        wait_until("redis-server (`tests/run --setup` installs it)", &self.folder, ready)
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

    /// Deletes everything.
    pub fn flush(&self) -> Result<()> {
        match self.command(&["FLUSHALL"])?.as_str() {
            "+OK" => Ok(()),
            answer => bail!("FLUSHALL: {answer}"),
        }
    }

    /// Sends one command; the first line of its answer.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(text.as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    fn running(&self) -> Result<&Guarded> {
        self.server.as_ref().context("Redis was killed")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The guard removes the folder of a node that runs, but not of one that was killed.
        if self.server.is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

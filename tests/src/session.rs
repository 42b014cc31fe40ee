//! A session of PostgreSQL outside of the server, with a transaction that stays open.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, Command, Stdio};

use boxoffice_services::Postgres;

/// A transaction that keeps its locks until it is dropped: then its session ends, and PostgreSQL rolls it back.
pub struct OpenTransaction {
    _input: ChildStdin,
}

impl OpenTransaction {
    /// Runs `statements` in a database of the shared cluster and returns once they have their locks. Blocks.
    ///
    /// # Panics
    /// When `psql` cannot be started, or a statement fails.
    pub fn begin(url: &str, statements: &str) -> Self {
        let mut psql = Command::new(Postgres::shared().bin().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut psql = psql.spawn().expect("psql starts");
        let mut input = psql.stdin.take().expect("a standard input");
        input.write_all(format!("BEGIN; {statements}; SELECT 'locked';\n").as_bytes()).expect("psql reads");
        let output = BufReader::new(psql.stdout.take().expect("a standard output"));
        let is_locked = output.lines().map_while(Result::ok).any(|line| line.trim() == "locked");
        assert!(is_locked, "`{statements}` failed");
        // It ends with its standard input; a thread waits for it, so that no zombie is left.
        std::thread::spawn(move || psql.wait());
        Self { _input: input }
    }
}

//! A replica of a room that is just the list of its inputs, in order. Its snapshot is that list, so anything that a log loses,
//! duplicates or reorders shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_ports::{Exchanged, LogPosition, RoomLog, RoomLogError};
use tokio::time::Instant;

use super::{LONG, wait_out};

/// More answers than anything here needs.
const ANSWERS_MAX: usize = 10_000;

pub(super) struct Replica {
    pub(super) log: Arc<dyn RoomLog>,
    pub(super) concert: ConcertId,
    pub(super) position: LogPosition,
    pub(super) history: Vec<u64>,
    /// How often it began again.
    pub(super) beginnings: usize,
    /// How often there was no log.
    pub(super) absences: usize,
}

/// Never the same twice.
fn fresh_input() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

impl Replica {
    /// Begins the log if there is none.
    pub(super) async fn begin(log: Arc<dyn RoomLog>, concert: ConcertId) -> Self {
        let position = LogPosition::default();
        let mut replica = Self { log, concert, position, history: Vec::new(), beginnings: 0, absences: 0 };
        while replica.position.epoch == 0 {
            replica.settle().await;
        }
        (replica.beginnings, replica.absences) = (0, 0);
        replica
    }

    pub(super) fn snapshot(&self) -> Vec<u8> {
        self.history.iter().flat_map(|input| input.to_be_bytes()).collect()
    }

    /// One exchange, and the call that has to follow it. Whether the inputs were appended.
    pub(super) async fn ask(&mut self, inputs: Vec<RoomInput>) -> Result<bool, RoomLogError> {
        match self.log.exchange(self.concert, self.position, inputs).await? {
            Exchanged::Records { now, records, appended } => {
                for record in records {
                    assert_eq!(record.seq, self.position.seq + 1, "no gap, and no record twice");
                    assert!(record.at <= now);
                    self.position.seq = record.seq;
                    self.history.extend(record.inputs.iter().map(|input| match input {
                        RoomInput::Reserve { to } => *to,
                        other => panic!("{other:?} was never appended"),
                    }));
                }
                Ok(appended)
            }
            Exchanged::Begin { position, snapshot, .. } => {
                self.history = snapshot.chunks_exact(8).map(|chunk| u64::from_be_bytes(chunk.try_into().expect("eight"))).collect();
                (self.position, self.beginnings) = (position, self.beginnings + 1);
                Ok(false)
            }
            Exchanged::Absent { .. } => {
                self.absences += 1;
                self.log.begin(self.concert, self.snapshot()).await?;
                self.position = LogPosition::default();
                Ok(false)
            }
        }
    }

    /// Retries until an input is reported as appended, and returns it. Each attempt has another input, since the input of an
    /// attempt without an answer may have been appended.
    pub(super) async fn append(&mut self) -> u64 {
        let deadline = Instant::now() + LONG;
        for _ in 0..ANSWERS_MAX {
            let input = fresh_input();
            match self.ask(vec![RoomInput::Reserve { to: input }]).await {
                Ok(true) => {
                    assert_eq!(self.history.last(), Some(&input), "its own is the last");
                    return input;
                }
                Ok(false) => {}
                Err(error) => wait_out(error, deadline).await,
            }
        }
        panic!("not appended after {ANSWERS_MAX} answers");
    }

    /// Retries an exchange without inputs until it is answered.
    async fn settle(&mut self) {
        let deadline = Instant::now() + LONG;
        while let Err(error) = self.ask(Vec::new()).await {
            wait_out(error, deadline).await;
        }
    }

    /// Reads until there is nothing new.
    pub(super) async fn catch_up(&mut self) {
        for _ in 0..ANSWERS_MAX {
            let before = self.position;
            self.settle().await;
            if self.position == before {
                return;
            }
        }
        panic!("still something new after {ANSWERS_MAX} answers");
    }

    pub(super) async fn compact(&self) -> bool {
        let deadline = Instant::now() + LONG;
        loop {
            match self.log.compact(self.concert, self.position, self.snapshot()).await {
                Ok(done) => return done,
                Err(error) => wait_out(error, deadline).await,
            }
        }
    }
}

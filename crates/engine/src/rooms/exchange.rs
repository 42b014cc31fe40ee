//! Exchanges with a room's log: pending calls together, one exchange at a time.
//!
//! Inputs that come while an exchange is out go with the next one, up to [`TOGETHER_MAX`] inputs a record. Entries that
//! a log has lost and this replica knows are appended before anything else. Waiting calls are bounded: beyond that the
//! room is unavailable at once. A caller that goes away changes nothing: its inputs are appended all the same.
//!
//! The exchange task is the only writer of the replica. It applies [`APPLIED_TOGETHER`] inputs under one write lock,
//! and while it copies the room nothing is written: so neither delays readers for long.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::Timestamp;
use boxoffice_domain::waiting::{Room, RoomInput, RoomOutput};
use boxoffice_ports::{Exchanged, RECORDS_READ_MAX, RoomError, RoomRecord};
use chrono::TimeDelta;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::begin;
use super::error::{ExchangeError, unavailable, unexpected_output};
use super::handle::RoomHandle;
use super::pending::{PendingCall, PendingCalls, TOGETHER_MAX};
use super::snapshot::RoomCopy;
use crate::sync::lock;

/// How often a log may be gone or replaced in one exchange before its callers get an error.
const BEGINS_MAX: u32 = 5;
/// Inputs applied under one write lock: readers wait for no more.
const APPLIED_TOGETHER: usize = 2_000;
/// For how long after an exchange failed other instances' records are treated as this instance's own: its inputs may
/// arrive late.
const IN_DOUBT: Duration = Duration::from_secs(30);

impl RoomHandle {
    pub(super) async fn append(self: &Arc<Self>, input: RoomInput) -> Result<RoomOutput, RoomError> {
        self.append_all(vec![input]).await?.pop().ok_or_else(unexpected_output)
    }

    /// The outputs of `inputs`, in their order.
    pub(super) async fn append_all(self: &Arc<Self>, inputs: Vec<RoomInput>) -> Result<Vec<RoomOutput>, ExchangeError> {
        self.call(|answer| PendingCall::Append(inputs, answer)).await
    }

    /// Returns when everything that was appended before this call is applied here.
    pub(super) async fn catch_up(self: &Arc<Self>) -> Result<(), ExchangeError> {
        self.call(PendingCall::CatchUp).await
    }

    /// The room with everything that was appended before this call; `None` while there is none.
    pub(super) async fn copy(self: &Arc<Self>) -> Result<Option<RoomCopy>, ExchangeError> {
        self.call(PendingCall::Copy).await
    }

    async fn call<T>(
        self: &Arc<Self>,
        call: impl FnOnce(oneshot::Sender<Result<T, ExchangeError>>) -> PendingCall,
    ) -> Result<T, ExchangeError> {
        let (answer, answered) = oneshot::channel();
        let must_start = lock(&self.pending).add(call(answer))?;
        if must_start {
            // Not under the lock: a runtime that shuts down drops the task here and now.
            self.context.runtime.spawn(ExchangeGuard { handle: self.clone(), done: false }.run());
        }
        answered.await.unwrap_or_else(|_| Err(unavailable("the task that exchanges with the waiting room's log has stopped")))
    }

    /// All inputs, in one exchange unless there is more to be read, or lost entries to be appended, first.
    async fn exchange(self: &Arc<Self>, inputs: &[RoomInput]) -> Result<Vec<RoomOutput>, ExchangeError> {
        let mut begins = 0;
        // The room as it was here before a loss, and the inputs that bring back the entries which the log does not
        // know.
        let (mut before, mut unknown) = (None::<Room>, Vec::new());
        loop {
            let since = self.replica().position;
            let own = before.is_none() && unknown.is_empty();
            let appending = match &before {
                Some(_) => Vec::new(),
                None if own => inputs.to_vec(),
                // In their order: a user whose earlier stay is ended first is then given back the later one.
                None => unknown[..unknown.len().min(TOGETHER_MAX)].to_vec(),
            };
            let count = appending.len();
            let offset = self.context.parts.clock.offset();
            match self.context.parts.log.exchange(self.concert, since, appending).await.inspect_err(|_| self.note_unanswered(count))? {
                Exchanged::Records { now, records, appended } => {
                    let more = !appended && (count > 0 || records.len() >= RECORDS_READ_MAX);
                    let outputs = self.apply((now, offset), records, appended).await;
                    if more {
                        continue;
                    }
                    if own {
                        return Ok(outputs);
                    }
                    match before.take() {
                        Some(before) => unknown.extend(begin::unknown(self, before).await?),
                        None => drop(unknown.drain(..count)),
                    }
                }
                Exchanged::Begin { now, position, snapshot } => {
                    begins += 1;
                    if begins > BEGINS_MAX {
                        return Err(unavailable("the waiting room's log was replaced again and again"));
                    }
                    let known = begin::take_over(self, now, position, snapshot).await?;
                    before = before.or(known);
                }
                Exchanged::Absent { now } => {
                    begins += 1;
                    if begins > BEGINS_MAX {
                        return Err(unavailable("the waiting room's log was lost again and again"));
                    }
                    begin::begin(self, now).await?;
                }
            }
        }
    }

    /// So many inputs were not answered: they may have been appended, or may yet be.
    fn note_unanswered(&self, inputs: usize) {
        if inputs > 0 {
            *lock(&self.failed_at) = Some(Instant::now());
        }
    }

    /// Applies records in order. Returns the outputs of this instance's own record, which is the last one if it was
    /// `appended`.
    async fn apply(&self, (now, offset): (Timestamp, TimeDelta), records: Vec<RoomRecord>, appended: bool) -> Vec<RoomOutput> {
        let is_in_doubt = lock(&self.failed_at).is_some_and(|at| at.elapsed() < IN_DOUBT);
        let mut outputs = Vec::new();
        let mut rest = records.into_iter().peekable();
        loop {
            let (mut inputs, mut others, mut mine) = (0, Vec::new(), Vec::new());
            while let Some(record) = rest.next_if(|record| inputs == 0 || inputs + record.inputs.len() <= APPLIED_TOGETHER) {
                inputs += record.inputs.len();
                let is_mine = appended && rest.peek().is_none();
                if is_mine { mine.push(record) } else { others.push(record) }
            }
            let is_last = rest.peek().is_none();
            let mut changes = Vec::new();
            {
                let mut replica = self.replica_mut();
                let (mut abandoned, mut own_from) = (Vec::new(), 0);
                replica.apply(others, &mut changes, &mut abandoned);
                // The instance that appended a record saves it to the mirror and gives back the holds. In doubt, both
                // instances do.
                if !is_in_doubt {
                    own_from = changes.len();
                    abandoned.clear();
                }
                if !mine.is_empty() {
                    outputs = replica.apply(mine, &mut changes, &mut abandoned);
                }
                if self.context.parts.log.is_volatile() {
                    lock(&self.unmirrored).changed(&changes[own_from..]);
                }
                if !abandoned.is_empty() {
                    self.add_abandoned(abandoned);
                }
                if is_last {
                    replica.observe_time(now, offset, &*self.context.parts.clock);
                }
            }
            if !changes.is_empty() {
                self.publish(changes, false);
            }
            if is_last {
                return outputs;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The one exchange task of a room. When it ends, the next call starts another one.
struct ExchangeGuard {
    handle: Arc<RoomHandle>,
    /// It ended because no call was pending.
    done: bool,
}

impl ExchangeGuard {
    async fn run(mut self) {
        loop {
            let Some(calls) = lock(&self.handle.pending).take() else { break };
            let mut inputs = Vec::new();
            let (mut appending, mut catching_up, mut copying) = (Vec::new(), Vec::new(), Vec::new());
            for call in calls {
                match call {
                    PendingCall::Append(some, answer) => {
                        appending.push((some.len(), answer));
                        inputs.extend(some);
                    }
                    PendingCall::CatchUp(answer) => catching_up.push(answer),
                    PendingCall::Copy(answer) => copying.push(answer),
                }
            }
            let done = self.handle.exchange(&inputs).await;
            // A send fails when its caller has gone away: it needs no answer.
            for answer in catching_up {
                let _ = answer.send(done.as_ref().map(|_| ()).map_err(Clone::clone));
            }
            let failed = done.as_ref().err().cloned();
            let mut outputs = done.map(Vec::into_iter);
            for (count, answer) in appending {
                let _ = answer.send(outputs.as_mut().map(|outputs| outputs.take(count).collect()).map_err(|error| error.clone()));
            }
            for answer in copying {
                let copied = match &failed {
                    Some(error) => Err(error.clone()),
                    None => begin::copied(&self.handle).await,
                };
                let _ = answer.send(copied);
            }
        }
        self.done = true;
    }
}

impl Drop for ExchangeGuard {
    /// A defect stopped the task: pending calls fail, and the next call starts another task.
    fn drop(&mut self) {
        if !self.done {
            *lock(&self.handle.pending) = PendingCalls::default();
        }
    }
}

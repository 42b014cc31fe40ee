//! The commands that this instance appended to the log and has no answer for: their callers, and how many they are.
//!
//! Each takes a *slot* before it is appended, so that an answer that overtakes the append finds it. The slot ends with
//! the answer. When its caller goes away or waits no longer, the slot stays, *unattended*: the command still stands in
//! the log and counts. So that a lost answer does not count for ever, the ledger is asked for unattended commands again
//! and again ([`Outstanding::due`]). Their slots end with a stored reply, or when the command is so old that a reader
//! would have put it with the dead letters. If the outcome may never be stored (a best hold that may have to choose
//! again), the slot ends after [`UNSTORED_MAX`]. A command that could not be appended does not count: it may stand in
//! the log all the same, and is then decided while no caller waits.
//!
//! *Several slots of one command* are the same command appended several times, decided in that order. A stored outcome
//! ends all of them. "Choose again" ends only the first that allows it, because the next is decided anew. They have one
//! fingerprint; a command with another one is refused at once, since an answer does not say which of the two it is for.
//!
//! *Lock.* One mutex, held for no call outside. Whether there is room is kept beside it, so that a crowd that is turned
//! away does not hold up the answers.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxoffice_domain::{Command, CommandId, Decision, Fingerprint, Reply, Request};
use boxoffice_ports::Answer;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pace::{Pace, PaceSettings};
use crate::Stats;
use crate::sync::lock;

/// How long an unattended command counts if its outcome may never be stored.
const UNSTORED_MAX: Duration = Duration::from_secs(30);

/// What a caller gets: the reply, or why there will be none.
pub(super) type LoggedReply = Result<Reply, String>;

/// See the module's opening.
pub(super) struct Outstanding {
    state: Mutex<State>,
    /// As of the last change. It only turns requests away early: room is checked again under the lock.
    full: AtomicBool,
    stats: Arc<Stats>,
    wait: Duration,
    retention: Duration,
}

struct State {
    commands: HashMap<CommandId, Vec<Slot>>,
    count: usize,
    pace: Pace,
    /// The number of the last slot.
    numbers: u64,
    /// Unattended slots by when the ledger is asked next. Those that ended meanwhile are skipped.
    unattended: VecDeque<Unattended>,
}

struct Slot {
    number: u64,
    fingerprint: Option<Fingerprint>,
    /// Its outcome may be "choose again", which is never stored.
    may_retry: bool,
    since: Instant,
    caller: Option<oneshot::Sender<LoggedReply>>,
}

pub(super) struct Unattended {
    look_at: Instant,
    request: Arc<Request>,
    number: u64,
}

/// Why a command gets no slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EnterError {
    TooMany,
    /// The same command with another fingerprint stands in the log.
    AnotherFingerprint,
}

/// Whether the outcome of `command` may be one that no ledger keeps.
pub(super) fn may_retry(command: &Command) -> bool {
    matches!(command, Command::HoldSeats { best: true, last: false, .. })
}

impl Outstanding {
    pub(super) fn new(settings: PaceSettings, retention: Duration, stats: Arc<Stats>) -> Self {
        let state = State {
            commands: HashMap::new(),
            count: 0,
            pace: Pace::new(settings, Instant::now()),
            numbers: 0,
            unattended: VecDeque::new(),
        };
        Self { state: Mutex::new(state), full: AtomicBool::new(false), stats, wait: settings.wait, retention }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the next command would find no room.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn look_for_room(&self, state: &State) {
        self.full.store(state.count >= state.pace.bound(), Ordering::Relaxed);
    }

    /// Takes a slot for a command that is about to be appended.
    pub(super) fn enter(&self, request: Arc<Request>, caller: Option<oneshot::Sender<LoggedReply>>) -> Result<SlotGuard<'_>, EnterError> {
        let mut state = self.state();
        let (now, count) = (Instant::now(), state.count);
        state.pace.pass(now, count, 0);
        if count >= state.pace.bound() {
            self.look_for_room(&state);
            return Err(EnterError::TooMany);
        }
        state.numbers += 1;
        let number = state.numbers;
        let same = state.commands.entry(request.command_id).or_default();
        if same.first().is_some_and(|first| first.fingerprint != request.fingerprint) {
            return Err(EnterError::AnotherFingerprint);
        }
        same.push(Slot { number, fingerprint: request.fingerprint, may_retry: may_retry(&request.command), since: now, caller });
        state.count += 1;
        self.look_for_room(&state);
        drop(state);
        self.stats.logged_commands.add(1);
        Ok(SlotGuard { outstanding: self, request, number, appended: false })
    }

    /// Ends the slots of answered commands, then answers their callers.
    pub(super) fn answered(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut answered = Vec::new();
        let mut ended = 0;
        {
            let mut state = self.state();
            for Answer { command, reply } in answers {
                let retry = matches!(&reply, Ok(Reply { decision: Decision::Retry, .. }));
                let Entry::Occupied(mut same) = state.commands.entry(command) else { continue };
                let slots = same.get_mut();
                let all = if retry {
                    let first = slots.iter().position(|one| one.may_retry);
                    first.map(|first| vec![slots.remove(first)]).unwrap_or_default()
                } else {
                    std::mem::take(slots)
                };
                if slots.is_empty() {
                    same.remove();
                }
                ended += all.len();
                answered.push((all, reply));
            }
            let (now, count) = (Instant::now(), state.count);
            state.pace.pass(now, count, ended);
            state.count -= ended;
            self.look_for_room(&state);
        }
        self.stats.logged_commands.sub(ended as u64);
        for (slots, mut reply) in answered {
            for caller in slots.into_iter().filter_map(|one| one.caller) {
                // A caller that went away needs no answer.
                let _ = caller.send(reply.clone());
                // All answers of a command but the first are replays.
                if let Ok(reply) = &mut reply {
                    reply.replayed = true;
                }
            }
        }
    }

    /// Up to `max` unattended slots whose reply is to be looked up now. The caller ends each, or returns it for later.
    pub(super) fn due(&self, max: usize) -> Vec<Unattended> {
        let now = Instant::now();
        let mut state = self.state();
        let mut due = Vec::new();
        while due.len() < max
            && let Some(next) = state.unattended.pop_front_if(|next| next.look_at <= now)
        {
            let same = state.commands.get(&next.request.command_id);
            let Some(one) = same.and_then(|same| same.iter().find(|one| one.number == next.number)) else { continue };
            let (age, may_retry) = (now - one.since, one.may_retry);
            if age > self.retention || may_retry && age > UNSTORED_MAX {
                self.end(&mut state, next.request.command_id, next.number);
            } else {
                due.push(next);
            }
        }
        due
    }

    pub(super) fn look_again_later(&self, unattended: Unattended) {
        self.state().unattended.push_back(Unattended { look_at: Instant::now() + self.wait, ..unattended });
    }

    pub(super) fn end_unattended(&self, unattended: &Unattended) {
        self.end(&mut self.state(), unattended.request.command_id, unattended.number);
    }

    fn end(&self, state: &mut State, command: CommandId, number: u64) {
        let Entry::Occupied(mut same) = state.commands.entry(command) else { return };
        let slots = same.get_mut();
        let Some(at) = slots.iter().position(|one| one.number == number) else { return };
        slots.remove(at);
        if slots.is_empty() {
            same.remove();
        }
        let (now, count) = (Instant::now(), state.count);
        state.pace.pass(now, count, 0);
        state.count -= 1;
        self.look_for_room(state);
        self.stats.logged_commands.sub(1);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.state().count
    }

    #[cfg(test)]
    pub(super) fn bound(&self) -> usize {
        self.state().pace.bound()
    }
}

impl Unattended {
    pub(super) fn request(&self) -> &Request {
        &self.request
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        let left = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).count;
        self.stats.logged_commands.sub(left as u64);
    }
}

/// A slot while its caller waits. On drop it becomes unattended if its command was appended, and ends if not.
pub(super) struct SlotGuard<'a> {
    outstanding: &'a Outstanding,
    request: Arc<Request>,
    number: u64,
    appended: bool,
}

impl SlotGuard<'_> {
    /// The command stands in the log.
    pub(super) fn appended(&mut self) {
        self.appended = true;
    }

    /// The command is known to be decided, or not to be in the log.
    pub(super) fn end(mut self) {
        self.appended = false;
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let (outstanding, command) = (self.outstanding, self.request.command_id);
        let mut state = outstanding.state();
        if !self.appended {
            return outstanding.end(&mut state, command, self.number);
        }
        let same = state.commands.get_mut(&command);
        if let Some(one) = same.and_then(|same| same.iter_mut().find(|one| one.number == self.number)) {
            one.caller = None;
            let look_at = Instant::now() + outstanding.wait;
            state.unattended.push_back(Unattended { look_at, request: self.request.clone(), number: self.number });
        }
    }
}

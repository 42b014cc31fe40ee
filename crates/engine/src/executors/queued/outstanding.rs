//! The commands that this instance appended to the log and has no answer for: their callers, and how many they are.
//!
//! An entry begins before its command is appended, so that an answer that overtakes the append finds it, and ends with
//! the answer. When its caller goes away or waits no longer the entry stays, *unheard*: the command still stands in the
//! log and counts. So that a lost answer does not count for ever, the ledger is asked for unheard commands again and
//! again ([`Outstanding::due`]); they end with a stored reply, or when they are so old that a reader would have put them
//! with the dead letters. One whose outcome may never be stored (a best hold that can be told to choose again) ends after
//! [`UNSTORED_MAX`]. A command that could not be appended does not count: it may stand in the log all the same, and is
//! then decided without being waited for.
//!
//! *Several entries of one command* are the same command appended several times, decided in that order: a stored outcome
//! ends all of them, and "choose again" only the first that may be told so, because the next decides anew. They have one
//! fingerprint; another one is refused at the door, since an answer does not say which of the two it is for.
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

/// How long an unheard command counts whose outcome may never be stored.
const UNSTORED_MAX: Duration = Duration::from_secs(30);

/// What a caller is told: the reply, or why there will be none.
pub(super) type Told = Result<Reply, String>;

/// See the module's opening.
pub(super) struct Outstanding {
    state: Mutex<State>,
    /// As of the last change: it lets nobody in who has no room, that is looked up again under the lock.
    full: AtomicBool,
    stats: Arc<Stats>,
    wait: Duration,
    retention: Duration,
}

struct State {
    commands: HashMap<CommandId, Vec<Logged>>,
    count: usize,
    pace: Pace,
    entries: u64,
    /// Unheard entries by when the ledger is asked next. Those that ended meanwhile are passed over.
    unheard: VecDeque<Unheard>,
}

struct Logged {
    entry: u64,
    fingerprint: Option<Fingerprint>,
    /// Its outcome may be "choose again", which is never stored.
    may_retry: bool,
    since: Instant,
    caller: Option<oneshot::Sender<Told>>,
}

pub(super) struct Unheard {
    look_at: Instant,
    request: Arc<Request>,
    entry: u64,
}

/// Why a command is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
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
        let state =
            State { commands: HashMap::new(), count: 0, pace: Pace::new(settings, Instant::now()), entries: 0, unheard: VecDeque::new() };
        Self { state: Mutex::new(state), full: AtomicBool::new(false), stats, wait: settings.wait, retention }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next one would find no room.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn look_for_room(&self, state: &State) {
        self.full.store(state.count >= state.pace.bound(), Ordering::Relaxed);
    }

    /// Begins an entry that is about to be appended. Without a caller nobody is told of its answer.
    pub(super) fn enter(&self, request: Arc<Request>, caller: Option<oneshot::Sender<Told>>) -> Result<Ticket<'_>, Full> {
        let mut state = self.state();
        let (now, count) = (Instant::now(), state.count);
        state.pace.pass(now, count, 0);
        if count >= state.pace.bound() {
            self.look_for_room(&state);
            return Err(Full::TooMany);
        }
        state.entries += 1;
        let entry = state.entries;
        let same = state.commands.entry(request.command_id).or_default();
        if same.first().is_some_and(|first| first.fingerprint != request.fingerprint) {
            return Err(Full::AnotherFingerprint);
        }
        same.push(Logged { entry, fingerprint: request.fingerprint, may_retry: may_retry(&request.command), since: now, caller });
        state.count += 1;
        self.look_for_room(&state);
        drop(state);
        self.stats.logged_commands.add(1);
        Ok(Ticket { outstanding: self, request, entry, appended: false })
    }

    /// Tells the callers, and ends what is answered.
    pub(super) fn answered(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut told = Vec::new();
        let mut ended = 0;
        {
            let mut state = self.state();
            for Answer { command, reply } in answers {
                let retry = matches!(&reply, Ok(Reply { decision: Decision::Retry, .. }));
                let Entry::Occupied(mut same) = state.commands.entry(command) else { continue };
                let entries = same.get_mut();
                let all = if retry {
                    let first = entries.iter().position(|logged| logged.may_retry);
                    first.map(|first| vec![entries.remove(first)]).unwrap_or_default()
                } else {
                    std::mem::take(entries)
                };
                if entries.is_empty() {
                    same.remove();
                }
                ended += all.len();
                told.push((all, reply));
            }
            let (now, count) = (Instant::now(), state.count);
            state.pace.pass(now, count, ended);
            state.count -= ended;
            self.look_for_room(&state);
        }
        self.stats.logged_commands.sub(ended as u64);
        for (entries, mut reply) in told {
            for caller in entries.into_iter().filter_map(|logged| logged.caller) {
                // A caller that went away needs no answer.
                let _ = caller.send(reply.clone());
                // The first answer of a command is its only one that is no replay.
                if let Ok(reply) = &mut reply {
                    reply.replayed = true;
                }
            }
        }
    }

    /// Up to `max` unheard commands whose reply is to be looked up now. Each is either ended or looked for again later.
    pub(super) fn due(&self, max: usize) -> Vec<Unheard> {
        let now = Instant::now();
        let mut state = self.state();
        let mut due = Vec::new();
        while due.len() < max
            && let Some(next) = state.unheard.pop_front_if(|next| next.look_at <= now)
        {
            let same = state.commands.get(&next.request.command_id);
            let Some(logged) = same.and_then(|same| same.iter().find(|logged| logged.entry == next.entry)) else { continue };
            let (age, may_retry) = (now - logged.since, logged.may_retry);
            if age > self.retention || may_retry && age > UNSTORED_MAX {
                self.end(&mut state, next.request.command_id, next.entry);
            } else {
                due.push(next);
            }
        }
        due
    }

    pub(super) fn look_again_later(&self, unheard: Unheard) {
        self.state().unheard.push_back(Unheard { look_at: Instant::now() + self.wait, ..unheard });
    }

    pub(super) fn end_unheard(&self, unheard: &Unheard) {
        self.end(&mut self.state(), unheard.request.command_id, unheard.entry);
    }

    fn end(&self, state: &mut State, command: CommandId, entry: u64) {
        let Entry::Occupied(mut same) = state.commands.entry(command) else { return };
        let entries = same.get_mut();
        let Some(at) = entries.iter().position(|logged| logged.entry == entry) else { return };
        entries.remove(at);
        if entries.is_empty() {
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

impl Unheard {
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

/// An entry in the hands of whoever appends it. Dropped, the entry stays unheard when it was appended, and ends when not.
pub(super) struct Ticket<'a> {
    outstanding: &'a Outstanding,
    request: Arc<Request>,
    entry: u64,
    appended: bool,
}

impl Ticket<'_> {
    /// The command stands in the log.
    pub(super) fn appended(&mut self) {
        self.appended = true;
    }

    /// The command is known to be decided, or not to be in the log.
    pub(super) fn end(mut self) {
        self.appended = false;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let (outstanding, command) = (self.outstanding, self.request.command_id);
        let mut state = outstanding.state();
        if !self.appended {
            return outstanding.end(&mut state, command, self.entry);
        }
        let same = state.commands.get_mut(&command);
        if let Some(logged) = same.and_then(|same| same.iter_mut().find(|logged| logged.entry == self.entry)) {
            logged.caller = None;
            let look_at = Instant::now() + outstanding.wait;
            state.unheard.push_back(Unheard { look_at, request: self.request.clone(), entry: self.entry });
        }
    }
}

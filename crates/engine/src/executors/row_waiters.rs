//! Commands whose rows a transaction outside this program keeps locked. They wait here, and the lanes and shards go on
//! without them.
//!
//! Such a transaction may last for any time: a session left open in `psql`, a report that locks what it reads, an
//! instance that hangs half way. The first batch that needs the row finds that out by a lock time-out (`attempt`). Its
//! commands come here, and so does every later one that needs the row, until none waits.
//!
//! *Rounds.* One task runs while any command waits, with one ledger call at a time. A round first decides the commands
//! that wait for no row that was held the last time. Then it tries the first command of each held row, in one batch
//! that waits in the store's own queue for the lock. When that command is decided, those behind it go together in the
//! next round.
//!
//! *Order.* Commands that need one held row are decided in the order in which they came. Later commands for the same
//! wallet, reservation or payment ([`order_key`]) wait behind a command that waits here: in a log that is the order of
//! the key. Seats are no such keys: another buyer's hold does not wait for the account of this one.
//!
//! *Bounds.* At most `waiting_max` commands wait; the next is [`ExecuteError::Overloaded`]. Each waits until its
//! deadline, then it is [`ExecuteError::Unavailable`]. A command whose caller is gone is dropped. Nothing of either was
//! written.
//!
//! *Failure.* While the store is away, every command waits until its deadline. If the task panics, the commands that
//! wait are dropped with their keys: each caller gets an error, and the next time-out begins anew.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use boxoffice_domain::{Key, Policy, Request};
use boxoffice_ports::{Deadline, ExecuteError, Ledger};
use tokio::sync::oneshot;

use super::attempt::{Answer, Settled, jittered, settle_all};
use super::behind::{divide, order_key};
use crate::Stats;
use crate::sync::lock;

/// How many commands may wait in an executor where each has a caller.
pub(super) const WAITING_MAX: usize = 4_096;
/// How many are decided in one batch.
const BATCH_MAX: usize = 1_024;
/// How long the ledger calls of one group may take.
const GROUP_MAX: Duration = Duration::from_secs(2);
/// The pause after a round that decided nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// See the module's opening.
#[derive(Clone)]
pub(super) struct RowWaiters(Arc<Shared>);

struct Shared {
    ledger: Arc<dyn Ledger>,
    policy: Arc<Policy>,
    stats: Arc<Stats>,
    waiting_max: usize,
    /// Whether any key is blocked: if not, commands pass without taking the lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they came, hence by number.
    waiting: VecDeque<HeldCommand>,
    /// How many of those block each key.
    blocked: HashMap<Key, usize>,
    /// The blocked keys whose rows were held when they were last tried.
    held: HashSet<Key>,
    numbers: u64,
    works: bool,
}

struct HeldCommand {
    number: u64,
    request: Request,
    rows: Vec<Key>,
    blocks: BTreeSet<Key>,
    deadline: Deadline,
    answer: oneshot::Sender<Answer>,
}

/// Requests with their numbers.
type Group = Vec<(u64, Request)>;

impl RowWaiters {
    pub(super) fn new(ledger: Arc<dyn Ledger>, policy: Arc<Policy>, stats: Arc<Stats>, waiting_max: usize) -> Self {
        Self(Arc::new(Shared { ledger, policy, stats, waiting_max, any: AtomicBool::new(false), state: Mutex::default() }))
    }

    /// Which of `requests` have to be [added](Self::add), in this order; `None` if none has to.
    pub(super) fn must_wait<'r>(&self, requests: impl IntoIterator<Item = &'r Request>) -> Option<Vec<bool>> {
        if !self.0.any.load(Ordering::Acquire) {
            return None;
        }
        let state = self.0.state();
        let taken = divide(requests, |row| state.blocked.contains_key(row));
        taken.contains(&true).then_some(taken)
    }

    /// Lets `request` wait until it can be decided. `held` are those of its rows that were found locked, none if it
    /// only stays behind others.
    pub(super) fn add(&self, request: Request, held: &[Key], deadline: Deadline, answer: oneshot::Sender<Answer>) {
        let shared = &self.0;
        let mut state = shared.state();
        if state.waiting.len() >= shared.waiting_max {
            drop(state);
            shared.stats.overloaded.add(1);
            // A caller that went away needs no answer.
            let _ = answer.send(Err(ExecuteError::Overloaded));
            return;
        }
        shared.stats.held_commands.add(1);
        let rows = request.command.rows();
        let mut blocks: BTreeSet<Key> = rows.iter().filter(|row| held.contains(row) || state.blocked.contains_key(*row)).copied().collect();
        blocks.extend(order_key(&request.command));
        for key in &blocks {
            *state.blocked.entry(*key).or_default() += 1;
        }
        for key in held {
            if state.held.insert(*key) {
                tracing::warn!(row = %key, "another transaction keeps a row locked; the commands that need it wait apart");
            }
        }
        state.numbers += 1;
        let number = state.numbers;
        state.waiting.push_back(HeldCommand { number, request, rows, blocks, deadline, answer });
        shared.any.store(true, Ordering::Release);
        if !std::mem::replace(&mut state.works, true) {
            tokio::spawn(work(shared.clone()));
        }
    }
}

async fn work(shared: Arc<Shared>) {
    let working = Working(&shared);
    while let Some((free, held)) = shared.round() {
        let decided = shared.settle(free, false).await + shared.settle(held, true).await;
        if decided == 0 {
            tokio::time::sleep(jittered(PAUSE)).await;
        }
    }
    std::mem::forget(working);
}

/// When a panic drops it, no command is left to wait for ever.
struct Working<'s>(&'s Shared);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        // It is also dropped when its runtime stops.
        if std::thread::panicking() {
            tracing::error!(task = "row_waiters", "the task of the commands that wait for row locks panicked");
        }
        *self.0.state() = State::default();
        self.0.any.store(false, Ordering::Release);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What is tried now: the commands that wait for no held row, and the first command of each held row. `None` when
    /// no command waits any more.
    fn round(&self) -> Option<(Group, Group)> {
        let mut state = self.state();
        self.expire(&mut state);
        if state.waiting.is_empty() {
            state.works = false;
            return None;
        }
        let (mut free, mut held) = (Group::new(), Group::new());
        let mut busy = HashSet::new();
        for HeldCommand { number, request, rows, blocks, .. } in &state.waiting {
            if free.len() + held.len() == BATCH_MAX {
                break;
            }
            if rows.iter().any(|row| busy.contains(row)) {
                busy.extend(blocks.iter().copied());
            } else if blocks.iter().any(|key| state.held.contains(key)) {
                busy.extend(blocks.iter().copied());
                held.push((*number, request.clone()));
            } else {
                free.push((*number, request.clone()));
            }
        }
        Some((free, held))
    }

    /// Ends the commands that are past their deadline or whose caller is gone.
    fn expire(&self, state: &mut State) {
        let over = state.waiting.iter().filter(|waiting| waiting.deadline.is_over() || waiting.answer.is_closed());
        for number in over.map(|waiting| waiting.number).collect::<Vec<_>>() {
            if let Some(answer) = self.end(state, number) {
                let _ = answer.send(Err(ExecuteError::Unavailable("timed out waiting for a row lock".into())));
            }
        }
    }

    /// Removes a command, with the keys that it blocks.
    fn end(&self, state: &mut State, number: u64) -> Option<oneshot::Sender<Answer>> {
        let at = state.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        let HeldCommand { blocks, answer, .. } = state.waiting.remove(at)?;
        for key in blocks {
            if let Some(count) = state.blocked.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    state.blocked.remove(&key);
                    state.held.remove(&key);
                }
            }
        }
        self.any.store(!state.blocked.is_empty(), Ordering::Release);
        Some(answer)
    }

    /// Decides what can be decided of a group. Returns how many commands were answered.
    async fn settle(&self, group: Group, was_held: bool) -> usize {
        if group.is_empty() {
            return 0;
        }
        let (numbers, requests): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let settled = settle_all(&self.ledger, requests.into(), &self.policy, &self.stats, Deadline::after(GROUP_MAX)).await;
        let mut answers = Vec::new();
        {
            let mut state = self.state();
            if was_held {
                for number in &numbers {
                    state.no_more_held(*number);
                }
            }
            for (number, settled) in numbers.into_iter().zip(settled) {
                match settled {
                    Settled::Held(keys) => state.held_again(number, keys),
                    Settled::Answered(answer @ (Ok(_) | Err(ExecuteError::Internal(_)))) => {
                        answers.extend(self.end(&mut state, number).map(|caller| (caller, answer)));
                    }
                    // The store is away: the command is tried again until its deadline.
                    Settled::Answered(Err(_)) => {}
                }
            }
        }
        let through = answers.len();
        for (caller, answer) in answers {
            let _ = caller.send(answer);
        }
        through
    }
}

impl State {
    fn no_more_held(&mut self, number: u64) {
        let Ok(at) = self.waiting.binary_search_by_key(&number, |waiting| waiting.number) else { return };
        for key in &self.waiting[at].blocks {
            self.held.remove(key);
        }
    }

    fn held_again(&mut self, number: u64, keys: Vec<Key>) {
        let Ok(at) = self.waiting.binary_search_by_key(&number, |waiting| waiting.number) else { return };
        for key in keys {
            if self.waiting[at].blocks.insert(key) {
                *self.blocked.entry(key).or_default() += 1;
            }
            self.held.insert(key);
        }
    }
}

#[cfg(test)]
mod tests;

//! The one rule that accepts or refuses a command, under every strategy.
//!
//! [`decide_batch`] takes the requests of a batch in order over one [`WorkingSet`]. For each it looks among the loaded
//! replies first (a replay, or a key used for something else), then decides, then records the reply; so replays and
//! duplicates inside a batch need no rule of their own, and a later command sees what an earlier one did.
//!
//! Every decision checks everything before it changes anything: a refusal leaves the working set as it was, and harms
//! no neighbour. It is total: for any rows there is an answer and no panic.

mod holds;
mod payments;
mod wallet;

#[cfg(test)]
mod tests;

pub use crate::reply::{Decision, Outcome, Reply};

use crate::batch::{Batch, Policy, StoredReply, WorkingSet};
use crate::{Command, Rejection, Request};

/// Decides every request of `batch`, in order. One reply for each, in that order.
pub fn decide_batch(set: &mut WorkingSet, batch: &Batch) -> Vec<Reply> {
    batch.requests.iter().map(|request| decide_one(set, request, &batch.policy)).collect()
}

fn decide_one(set: &mut WorkingSet, request: &Request, policy: &Policy) -> Reply {
    let now = set.now;
    let kept = request.idempotency();
    if let Some((key, fingerprint)) = kept
        && let Some(stored) = set.replies.get(&key)
        && stored.is_live(now)
    {
        if stored.fingerprint == fingerprint {
            return stored.replay();
        }
        return Reply { decision: Decision::Refused(Rejection::IdempotencyKeyReused), decided_at: now, replayed: false };
    }
    let result = match decide(set, request, policy).transpose() {
        Some(result) => result,
        None => return Reply { decision: Decision::Retry, decided_at: now, replayed: false },
    };
    if let Some((key, fingerprint)) = kept {
        let expires_at = now + chrono::TimeDelta::seconds(i64::from(policy.idempotency_ttl_s));
        set.replies.insert(key, StoredReply { fingerprint, result: result.clone(), decided_at: now, expires_at });
        set.written.replies.push(key);
    }
    Reply { decision: result.into(), decided_at: now, replayed: false }
}

/// `None`: nothing can be decided yet, choose again.
fn decide(set: &mut WorkingSet, request: &Request, policy: &Policy) -> Result<Option<Outcome>, Rejection> {
    let (fresh, actor) = (&request.fresh, request.actor);
    let outcome = match &request.command {
        Command::ChargeWallet { user, amount } => wallet::charge(set, fresh, *user, *amount, policy),
        Command::UseWallet { user, amount, memo } => wallet::spend(set, fresh, *user, *amount, memo.as_deref(), policy),
        Command::HoldSeats { user, date, count, choices, best, last } => {
            let asked = holds::HoldRequest { user: *user, date: *date, count: *count, choices, best: *best, last: *last };
            return holds::hold(set, fresh, &asked, policy);
        }
        Command::ExtendHold { user, reservation } => holds::extend(set, *user, *reservation, policy),
        Command::ReleaseHold { reservation } => holds::release(set, actor, *reservation),
        Command::ExpireHold { reservation } => holds::expire(set, *reservation),
        Command::Pay { user, reservation, points } => payments::pay(set, fresh, *user, *reservation, *points, policy),
        Command::Refund { user, payment } => payments::refund(set, fresh, *user, *payment),
    };
    outcome.map(Some)
}

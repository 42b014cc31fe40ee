//! Charge and use: one journal line each, the balance never below zero nor above its bound.

use crate::batch::{Policy, WorkingSet};
use crate::money::Money;
use crate::{EntryKind, Event, FreshIds, Outcome, PaymentId, Rejection, ReservationId, UserId, WalletEntry};

pub(super) fn charge(set: &mut WorkingSet, fresh: &FreshIds, user: UserId, amount: Money, policy: &Policy) -> Result<Outcome, Rejection> {
    check_amount(amount, policy)?;
    let balance = set.account(user).value.balance;
    if balance > policy.balance_max - amount {
        return Err(out_of_range("amount", format!("would lift the balance above {}", policy.balance_max)));
    }
    let entry = enter(set, fresh, user, EntryKind::Charge, amount, Cause::default());
    set.written.events.push(Event::WalletCharged { user, entry: entry.id, amount, balance: entry.balance });
    Ok(Outcome::Entered { entry })
}

pub(super) fn spend(
    set: &mut WorkingSet,
    fresh: &FreshIds,
    user: UserId,
    amount: Money,
    memo: Option<&str>,
    policy: &Policy,
) -> Result<Outcome, Rejection> {
    check_amount(amount, policy)?;
    if set.account(user).value.balance < amount {
        return Err(Rejection::InsufficientBalance);
    }
    let entry = enter(set, fresh, user, EntryKind::Use, -amount, Cause { memo, ..Cause::default() });
    set.written.events.push(Event::WalletUsed { user, entry: entry.id, amount, balance: entry.balance });
    Ok(Outcome::Entered { entry })
}

/// What a journal line is about.
#[derive(Default)]
pub(super) struct Cause<'a> {
    pub(super) memo: Option<&'a str>,
    pub(super) reservation: Option<ReservationId>,
    pub(super) payment: Option<PaymentId>,
}

/// Changes the balance by `amount` and writes the journal's line. The caller has checked that it stays in range.
pub(super) fn enter(set: &mut WorkingSet, fresh: &FreshIds, user: UserId, kind: EntryKind, amount: Money, cause: Cause<'_>) -> WalletEntry {
    let created_at = set.now;
    let account = set.account(user).change();
    account.balance += amount;
    account.entries += 1;
    debug_assert!(account.balance >= 0);
    let entry = WalletEntry {
        id: fresh.entry.into(),
        user,
        seq: account.entries,
        kind,
        amount,
        balance: account.balance,
        memo: cause.memo.map(str::to_owned),
        reservation: cause.reservation,
        payment: cause.payment,
        created_at,
    };
    set.written.entries.push(entry.clone());
    entry
}

fn check_amount(amount: Money, policy: &Policy) -> Result<(), Rejection> {
    if (1..=policy.amount_max).contains(&amount) {
        Ok(())
    } else {
        Err(out_of_range("amount", format!("must be from 1 to {}", policy.amount_max)))
    }
}

pub(super) fn out_of_range(field: &str, reason: impl Into<String>) -> Rejection {
    Rejection::AmountOutOfRange { field: field.to_owned(), reason: reason.into() }
}

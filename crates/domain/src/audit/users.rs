//! The pass by user: accounts are the sums of their journals (I2, I9).

use super::found::{Check, Found};
use super::row::OfUser;
use super::sums::{Fault, Journal};
use crate::account::{Account, EntryKind, PointsKind};
use crate::ids::UserId;

#[derive(Debug, Default)]
pub(super) struct UserSums {
    account: Option<Account>,
    wallet: Journal,
    points: Journal,
}

impl UserSums {
    pub(super) fn take(&mut self, row: OfUser, user: UserId, found: &mut Found) {
        match row {
            OfUser::Account(account) => {
                found.accounts += 1;
                self.account = Some(account);
            }
            OfUser::Entry { seq, kind, amount, balance } => {
                found.entries += 1;
                let fault = self.wallet.take(seq, amount, balance, matches!(kind, EntryKind::Charge | EntryKind::Refund));
                let entry = || format!("entry {seq} of user {user}");
                found.check(Check::EntriesFollow, fault.is_none(), || fault_text(entry(), fault, amount, balance));
                found.check(Check::EntryHasAccount, self.account.is_some(), || format!("{} has no account", entry()));
            }
            OfUser::Points { seq, kind, points, balance } => {
                let fault = self.points.take(seq, points, balance, matches!(kind, PointsKind::Grant | PointsKind::Restore));
                let entry = || format!("points entry {seq} of user {user}");
                found.check(Check::PointsFollow, fault.is_none(), || fault_text(entry(), fault, points, balance));
                found.check(Check::PointsHaveAccount, self.account.is_some(), || format!("{} has no account", entry()));
            }
        }
    }

    pub(super) fn close(self, user: UserId, found: &mut Found) {
        let Some(Account { balance, points, entries, points_entries, .. }) = self.account else { return };
        let Journal { total, lines, .. } = self.wallet;
        found.check(Check::BalanceIsSum, self.wallet.adds_up_to(balance, entries), || {
            format!("account {user} holds {balance} after {entries} entries, which sum to {total} in {lines}")
        });
        let Journal { total, lines, .. } = self.points;
        found.check(Check::PointsAreSum, self.points.adds_up_to(points, points_entries), || {
            format!("account {user} has {points} points after {points_entries} entries, which sum to {total} in {lines}")
        });
    }
}

fn fault_text(entry: String, fault: Option<Fault>, amount: i64, balance: i64) -> String {
    match fault {
        Some(Fault::Begins { at, left }) => format!("{entry} begins at {at}, the one before it left {left}"),
        _ => format!("{entry} moves {amount} and leaves {balance}, against its kind"),
    }
}

//! The pass by entry: ids and what replies claim of entries (I3).

use super::claims::Claims;
use super::found::{Check, Found};
use super::row::OfEntry;
use crate::ids::{EntryId, UserId};
use crate::money::Money;

#[derive(Debug, Default)]
pub(super) struct EntrySums {
    count: u64,
    last: Option<(UserId, i64, Money)>,
    claims: Claims,
}

impl EntrySums {
    pub(super) fn take(&mut self, row: OfEntry, found: &mut Found) {
        match row {
            OfEntry::Entry { user, seq, amount } => {
                self.count += 1;
                self.last = Some((user, seq, amount));
            }
            OfEntry::Claim { claim, user, seq, amount } => {
                let happened = self.last.is_some_and(|(owner, at, sum)| (Some(owner), Some(at), Some(sum)) == (user, seq, amount));
                self.claims.take(claim, happened, found);
            }
        }
    }

    pub(super) fn close(self, entry: EntryId, found: &mut Found) {
        let count = self.count;
        found.check(Check::EntryIdIsUnique, count <= 1, || format!("{count} entries share the id {entry}"));
        self.claims.close(entry, found);
    }
}

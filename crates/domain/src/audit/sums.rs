//! One journal of one user, line by line.

/// The lines so far.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) lines: i64,
    pub(super) total: i64,
    /// What the last line left.
    balance: i64,
    /// Whether the lines are numbered 1, 2, 3, …
    is_misnumbered: bool,
}

/// What is wrong with one line.
pub(super) enum Fault {
    /// It begins at something else than the line before it left.
    Begins { at: i64, left: i64 },
    /// Its amount has not the sign of its kind, or what it leaves is below zero.
    Sign,
}

impl Journal {
    pub(super) fn take(&mut self, seq: i64, amount: i64, balance: i64, adds: bool) -> Option<Fault> {
        self.lines += 1;
        self.total = self.total.saturating_add(amount);
        self.is_misnumbered |= seq != self.lines;
        let (at, left) = (balance.saturating_sub(amount), self.balance);
        self.balance = balance;
        if at != left {
            Some(Fault::Begins { at, left })
        } else {
            (amount == 0 || (amount > 0) != adds || balance < 0).then_some(Fault::Sign)
        }
    }

    /// Whether an account that holds `balance` after `lines` is the sum of this.
    pub(super) fn adds_up_to(&self, balance: i64, lines: i64) -> bool {
        balance == self.total && lines == self.lines && !self.is_misnumbered
    }
}

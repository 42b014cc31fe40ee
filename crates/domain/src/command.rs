//! Commands are data: every change of money or seats is a value that can be queued, batched, locked for and replayed.

use crate::money::{Money, Points};
use crate::{CommandId, DateId, PaymentId, ReservationId, SeatKey, SeatNumber, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use uuid::Uuid;

/// SHA-256 over method, path and body of the request that brought a command. Computed at the edge, opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

/// Where a command's reply is kept: for each user, by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey {
    pub user: UserId,
    pub command: CommandId,
}

/// On whose behalf a command is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    User(UserId),
    /// May charge any wallet; owns nothing.
    Operator(UserId),
    /// Sweeps and leaving: may release and expire any user's hold. Its replies are not kept.
    System,
}

impl Actor {
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::User(user) | Self::Operator(user) => Some(*user),
            Self::System => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    ChargeWallet {
        user: UserId,
        amount: Money,
    },
    UseWallet {
        user: UserId,
        amount: Money,
        memo: Option<String>,
    },
    /// `count` seats of `date` by `choices`, the first that is free whole. Named seats are one choice. `best` ones
    /// come from a view that may be stale: none free is [`crate::Decision::Retry`] unless `last`.
    HoldSeats {
        user: UserId,
        date: DateId,
        count: u32,
        choices: Vec<Vec<SeatNumber>>,
        best: bool,
        last: bool,
    },
    ExtendHold {
        user: UserId,
        reservation: ReservationId,
    },
    ReleaseHold {
        reservation: ReservationId,
    },
    ExpireHold {
        reservation: ReservationId,
    },
    Pay {
        user: UserId,
        reservation: ReservationId,
        points: Points,
    },
    Refund {
        user: UserId,
        payment: PaymentId,
    },
}

/// UUIDs for the records that the command may create, drawn before it is decided, so that deciding draws none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreshIds {
    /// The reservation or payment.
    pub subject: Uuid,
    /// The wallet entry.
    pub entry: Uuid,
    /// The points entries.
    pub points: [Uuid; 2],
}

/// A command with everything its decision needs besides the stored rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub command_id: CommandId,
    pub actor: Actor,
    /// `None`: the reply is neither looked up nor kept.
    pub fingerprint: Option<Fingerprint>,
    pub fresh: FreshIds,
    pub command: Command,
}

impl Request {
    /// Where its reply is kept; `None` when it is not.
    pub fn idempotency(&self) -> Option<(IdempotencyKey, Fingerprint)> {
        let user = self.actor.user()?;
        self.fingerprint.map(|fingerprint| (IdempotencyKey { user, command: self.command_id }, fingerprint))
    }
}

/// What commands contend for. The order is the global lock order: class, then key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Payment(PaymentId),
    Reservation(ReservationId),
    Date(DateId),
    Seat(SeatKey),
    Account(UserId),
}

/// Class and id: the same in every process, so that names outside can be made of it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payment(payment) => write!(f, "payment:{payment}"),
            Self::Reservation(reservation) => write!(f, "reservation:{reservation}"),
            Self::Date(date) => write!(f, "date:{date}"),
            Self::Seat(seat) => write!(f, "seat:{}:{}", seat.date, seat.number),
            Self::Account(user) => write!(f, "account:{user}"),
        }
    }
}

impl Command {
    /// The keys a lock in front of the ledger is taken on, sorted. They need not cover what the command touches: the
    /// ledger guards every write again.
    pub fn contention(&self) -> Vec<Key> {
        let mut keys = match self {
            Self::ChargeWallet { user, .. } | Self::UseWallet { user, .. } => vec![Key::Account(*user)],
            Self::HoldSeats { date, best: true, .. } => vec![Key::Date(*date)],
            Self::HoldSeats { date, choices, .. } => {
                choices.iter().flatten().map(|&number| Key::Seat(SeatKey { date: *date, number })).collect()
            }
            Self::ExtendHold { reservation, .. } | Self::ReleaseHold { reservation } | Self::ExpireHold { reservation } => {
                vec![Key::Reservation(*reservation)]
            }
            Self::Pay { reservation, user, .. } => vec![Key::Reservation(*reservation), Key::Account(*user)],
            Self::Refund { payment, .. } => vec![Key::Payment(*payment)],
        };
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The rows it names, sorted: the roots of a batch of it alone. A transaction that keeps one of them, or a row that
    /// hangs on one, keeps it from being decided.
    pub fn rows(&self) -> Vec<Key> {
        let mut rows = match self {
            Self::ChargeWallet { user, .. } | Self::UseWallet { user, .. } => vec![Key::Account(*user)],
            Self::HoldSeats { user, date, choices, .. } => {
                let seats = choices.iter().flatten().map(|&number| Key::Seat(SeatKey { date: *date, number }));
                seats.chain([Key::Account(*user)]).collect()
            }
            Self::ExtendHold { user, reservation } | Self::Pay { user, reservation, .. } => {
                vec![Key::Reservation(*reservation), Key::Account(*user)]
            }
            Self::ReleaseHold { reservation } | Self::ExpireHold { reservation } => vec![Key::Reservation(*reservation)],
            Self::Refund { user, payment } => vec![Key::Payment(*payment), Key::Account(*user)],
        };
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The key that chooses a lane: the first it contends for, or the account when it names none.
    pub fn lane_key(&self) -> Key {
        match self {
            Self::ChargeWallet { user, .. } | Self::UseWallet { user, .. } => Key::Account(*user),
            Self::HoldSeats { date, choices, best: false, .. } => {
                choices.iter().flatten().min().map_or(Key::Date(*date), |&number| Key::Seat(SeatKey { date: *date, number }))
            }
            Self::HoldSeats { date, .. } => Key::Date(*date),
            Self::ExtendHold { reservation, .. }
            | Self::ReleaseHold { reservation }
            | Self::ExpireHold { reservation }
            | Self::Pay { reservation, .. } => Key::Reservation(*reservation),
            Self::Refund { payment, .. } => Key::Payment(*payment),
        }
    }
}

/// What a batch names without reading: each set sorted, so that rows are locked in one order everywhere. What hangs
/// on a root (a reservation's seats, a payment's reservation) is added by the ledger's locking statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    pub payments: BTreeSet<PaymentId>,
    pub reservations: BTreeSet<ReservationId>,
    pub seats: BTreeSet<SeatKey>,
    pub accounts: BTreeSet<UserId>,
    /// Replies to look up, read after the locks.
    pub replies: BTreeSet<IdempotencyKey>,
    /// Dates whose terms are read.
    pub dates: BTreeSet<DateId>,
    /// Whose live and sold seats of which date count against a limit.
    pub occupied: BTreeSet<(UserId, DateId)>,
    /// Users whose holds are read, of any date.
    pub payers: BTreeSet<UserId>,
}

impl Roots {
    pub fn of(requests: &[Request]) -> Self {
        let mut roots = Self::default();
        for request in requests {
            roots.replies.extend(request.idempotency().map(|(key, _)| key));
            match &request.command {
                Command::ChargeWallet { user, .. } | Command::UseWallet { user, .. } => {
                    roots.accounts.insert(*user);
                }
                Command::HoldSeats { user, date, choices, .. } => {
                    roots.seats.extend(choices.iter().flatten().map(|&number| SeatKey { date: *date, number }));
                    roots.accounts.insert(*user);
                    roots.dates.insert(*date);
                    roots.occupied.insert((*user, *date));
                }
                Command::ExtendHold { user, reservation } => {
                    roots.reservations.insert(*reservation);
                    roots.accounts.insert(*user);
                }
                Command::Pay { user, reservation, .. } => {
                    roots.reservations.insert(*reservation);
                    roots.accounts.insert(*user);
                    roots.payers.insert(*user);
                }
                Command::ReleaseHold { reservation } | Command::ExpireHold { reservation } => {
                    roots.reservations.insert(*reservation);
                }
                Command::Refund { user, payment } => {
                    roots.payments.insert(*payment);
                    roots.accounts.insert(*user);
                }
            }
        }
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<T: From<Uuid>>(n: u128) -> T {
        Uuid::from_u128(n).into()
    }

    #[test]
    fn rows_are_the_roots_of_a_batch_of_it_alone() {
        let (user, date, reservation, payment): (UserId, DateId, ReservationId, PaymentId) = (id(1), id(2), id(3), id(4));
        let hold = |best| Command::HoldSeats { user, date, count: 2, choices: vec![vec![9, 3], vec![3, 4]], best, last: false };
        for command in [
            Command::ChargeWallet { user, amount: 1 },
            Command::UseWallet { user, amount: 1, memo: None },
            hold(false),
            hold(true),
            Command::ExtendHold { user, reservation },
            Command::ReleaseHold { reservation },
            Command::ExpireHold { reservation },
            Command::Pay { user, reservation, points: 0 },
            Command::Refund { user, payment },
        ] {
            let fresh = FreshIds { subject: Uuid::nil(), entry: Uuid::nil(), points: [Uuid::nil(); 2] };
            let rows = command.rows();
            let request = Request { command_id: id(5), actor: Actor::User(user), fingerprint: None, fresh, command };
            let Roots { payments, reservations, seats, accounts, .. } = Roots::of(&[request]);
            let payments = payments.into_iter().map(Key::Payment);
            let roots = payments.chain(reservations.into_iter().map(Key::Reservation)).chain(seats.into_iter().map(Key::Seat));
            assert_eq!(rows, roots.chain(accounts.into_iter().map(Key::Account)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn contention_is_what_the_design_lists() {
        let (user, date, reservation, payment): (UserId, DateId, ReservationId, PaymentId) = (id(1), id(2), id(3), id(4));
        let hold = |best, choices| Command::HoldSeats { user, date, count: 2, choices, best, last: false };
        for (command, keys) in [
            (Command::ChargeWallet { user, amount: 1 }, vec![Key::Account(user)]),
            (Command::UseWallet { user, amount: 1, memo: None }, vec![Key::Account(user)]),
            (hold(false, vec![vec![9, 3]]), vec![Key::Seat(SeatKey { date, number: 3 }), Key::Seat(SeatKey { date, number: 9 })]),
            (hold(true, vec![vec![9, 3], vec![4, 5]]), vec![Key::Date(date)]),
            (Command::ExtendHold { user, reservation }, vec![Key::Reservation(reservation)]),
            (Command::ReleaseHold { reservation }, vec![Key::Reservation(reservation)]),
            (Command::ExpireHold { reservation }, vec![Key::Reservation(reservation)]),
            (Command::Pay { user, reservation, points: 0 }, vec![Key::Reservation(reservation), Key::Account(user)]),
            (Command::Refund { user, payment }, vec![Key::Payment(payment)]),
        ] {
            assert_eq!(command.contention(), keys, "{command:?}");
            assert_eq!(command.lane_key(), keys[0], "{command:?}");
        }
    }
}

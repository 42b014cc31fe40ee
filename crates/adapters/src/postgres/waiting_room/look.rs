//! An entry as it was read, and what it reads as: the same as in the domain's own room.

use super::super::sql::{Id, State};
use boxoffice_domain::room::RATE_WINDOW_S;
use boxoffice_domain::{Eta, Place, QueueEntryId, QueueStatus, Timestamp, UserId};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};

/// The columns of `queue_look` and `queue_apply`.
pub(super) type LookTypes = (
    Nullable<SqlUuid>,
    Nullable<SqlUuid>,
    Nullable<BigInt>,
    Nullable<Text>,
    Nullable<Timestamptz>,
    Nullable<BigInt>,
    Timestamptz,
    Nullable<Timestamptz>,
    Bool,
    BigInt,
);
pub(super) type LookColumns = (
    Option<Id<QueueEntryId>>,
    Option<Id<UserId>>,
    Option<i64>,
    Option<State<QueueStatus>>,
    Option<Timestamp>,
    Option<i64>,
    Timestamp,
    Option<Timestamp>,
    bool,
    i64,
);

/// The instant at which a row was looked at.
pub(super) fn instant(columns: &LookColumns) -> Timestamp {
    columns.6
}

/// What the entry reads as; `None` for one that is not known.
pub(super) fn place(columns: LookColumns) -> Option<Place> {
    let (Some(entry), Some(user), Some(arrival), Some(stored), until, before, now, sale_starts_at, nothing_left, admitted) = columns else {
        return None;
    };
    let status = match stored.0 {
        QueueStatus::Active if until.is_none_or(|until| until <= now) => QueueStatus::Expired,
        QueueStatus::Waiting if sale_starts_at.is_some_and(|start| start > now) => QueueStatus::PreSale,
        QueueStatus::Waiting if nothing_left => QueueStatus::SoldOut,
        status => status,
    };
    let ahead = match status {
        QueueStatus::Active => Some(0),
        QueueStatus::Waiting | QueueStatus::SoldOut => before.map(i64::unsigned_abs),
        _ => None,
    };
    let admitted = u32::try_from(admitted).unwrap_or(u32::MAX);
    let eta = ahead.filter(|_| status == QueueStatus::Waiting).and_then(|ahead| Eta::estimate(ahead, admitted, RATE_WINDOW_S as f64));
    let active_until = until.filter(|_| status == QueueStatus::Active);
    Some(Place { entry: entry.0, user: user.0, status, arrival: arrival.unsigned_abs(), ahead, active_until, eta, sale_starts_at })
}

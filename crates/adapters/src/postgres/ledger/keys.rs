use crate::postgres::failure::Failure;
use boxoffice_domain::Roots;
use uuid::Uuid;

/// The roots as arrays, one for each column.
pub(super) struct Keys {
    pub(super) payments: Vec<Uuid>,
    pub(super) reservations: Vec<Uuid>,
    pub(super) seats: (Vec<Uuid>, Vec<i32>),
    pub(super) accounts: Vec<Uuid>,
    pub(super) replies: (Vec<Uuid>, Vec<Uuid>),
    pub(super) dates: Vec<Uuid>,
    pub(super) occupied: (Vec<Uuid>, Vec<Uuid>),
    pub(super) payers: Vec<Uuid>,
}

impl Keys {
    pub(super) fn of(roots: &Roots) -> Result<Self, Failure> {
        let numbers = roots.seats.iter().map(|key| i32::try_from(key.number));
        let numbers = numbers.collect::<Result<_, _>>().map_err(|_| Failure::Data("a seat number is out of range".to_owned()))?;
        Ok(Self {
            payments: roots.payments.iter().map(|id| id.0).collect(),
            reservations: roots.reservations.iter().map(|id| id.0).collect(),
            seats: (roots.seats.iter().map(|key| key.date.0).collect(), numbers),
            accounts: roots.accounts.iter().map(|id| id.0).collect(),
            replies: roots.replies.iter().map(|key| (key.user.0, key.command.0)).unzip(),
            dates: roots.dates.iter().map(|id| id.0).collect(),
            occupied: roots.occupied.iter().map(|(user, date)| (user.0, date.0)).unzip(),
            payers: roots.payers.iter().map(|user| user.0).collect(),
        })
    }
}

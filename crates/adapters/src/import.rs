//! What every store's import does in the same way.

use boxoffice_domain::{Seat, SeatPlan};
use boxoffice_ports::ImportEffect;

/// The effect on a concert, once something of it has changed.
pub(crate) fn changed(effect: ImportEffect) -> ImportEffect {
    match effect {
        ImportEffect::Unchanged => ImportEffect::Updated,
        effect => effect,
    }
}

pub(crate) fn is_seat_as_planned(seat: &Seat, plan: &SeatPlan) -> bool {
    (seat.section.as_deref(), seat.row.as_deref(), &*seat.grade, seat.price)
        == (plan.section.as_deref(), plan.row.as_deref(), plan.grade.as_str(), plan.price)
}

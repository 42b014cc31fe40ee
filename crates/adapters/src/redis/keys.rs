//! What locks are called in Redis.
//!
//! The braces are a hash tag: on a Cluster everything about one contention key lies in one slot, and different
//! contention keys lie anywhere.

use boxoffice_domain::Key;

/// The lock of a contention key: `command_id:random` while somebody has it.
pub(super) fn lock(key: &Key) -> String {
    let (class, id) = match key {
        Key::Payment(payment) => ("payment", payment.to_string()),
        Key::Reservation(reservation) => ("reservation", reservation.to_string()),
        Key::Date(date) => ("date", date.to_string()),
        Key::Seat(seat) => ("seat", format!("{}:{}", seat.date, seat.number)),
        Key::Account(user) => ("account", user.to_string()),
    };
    format!("boxoffice:lock:{{{class}:{id}}}")
}

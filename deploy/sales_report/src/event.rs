//! The parts of an event that a sales report needs: its identity, and its change of the sales.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// The newest version of `data` that this program knows.
const VERSION: u32 = 1;

/// A CloudEvent in structured JSON. Other attributes are ignored: new ones may be added.
#[derive(Deserialize)]
struct Envelope {
    source: String,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    schemaversion: u32,
    data: Value,
}

/// The identity of an event: the same however often it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) source: String,
    pub(crate) id: String,
}

/// The change of a concert's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) concert: String,
    pub(crate) seats_sold: i64,
    pub(crate) payments: i64,
    pub(crate) taken: i64,
    pub(crate) refunds: i64,
    pub(crate) refunded: i64,
}

#[derive(Deserialize)]
struct Reservation {
    concert: String,
    seats: Vec<u32>,
}

#[derive(Deserialize)]
struct Money {
    concert: String,
    amount: i64,
}

/// Reads an event; its change is `None` if it has nothing to do with sales.
pub(crate) fn read(bytes: &[u8]) -> Result<(Identity, Option<Change>)> {
    let Envelope { source, id, kind, schemaversion, data } = serde_json::from_slice(bytes).context("not an event")?;
    if schemaversion > VERSION {
        bail!("event {id} has version {schemaversion}; this program knows {VERSION}");
    }
    // A change of a reservation comes once for each seat and once for the whole reservation; only the latter is counted.
    let whole = data["event"] == "reservation";
    let seats = |sign: i64, data| -> Result<Change> {
        let Reservation { concert, seats } = serde_json::from_value(data).with_context(|| format!("{kind} {id}"))?;
        Ok(Change { concert, seats_sold: sign * i64::try_from(seats.len())?, ..Change::default() })
    };
    let money = |data| -> Result<Money> { serde_json::from_value(data).with_context(|| format!("{kind} {id}")) };
    let change = match kind.as_str() {
        "reservation.confirmed" if whole => Some(seats(1, data)?),
        "reservation.cancelled" if whole => Some(seats(-1, data)?),
        "payment.paid" => {
            let Money { concert, amount } = money(data)?;
            Some(Change { concert, payments: 1, taken: amount, ..Change::default() })
        }
        "payment.refunded" => {
            let Money { concert, amount } = money(data)?;
            Some(Change { concert, refunds: 1, refunded: amount, ..Change::default() })
        }
        _ => None,
    };
    Ok((Identity { source, id }, change))
}

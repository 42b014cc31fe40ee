//! Golden documents: the public surface, key for key.

use boxoffice_domain::waiting::{AdaptiveState, RoomSummary};
use boxoffice_domain::{
    Admission, AdmissionMode, ConcertRef, DateRef, EntryKind, Payment, PaymentId, PointsEntry, PointsKind, Refund, Reservation,
    ReservationId, ReservationStatus, SeatAtSale, WalletEntry,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::http::ticket_codes::TicketCodes;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn id(n: u128) -> String {
    uuid(n).to_string()
}

fn reservation() -> Reservation {
    Reservation {
        id: ReservationId(uuid(1)),
        user: uuid(2).into(),
        concert: ConcertRef { id: uuid(3).into(), name: "Moonlight".into(), venue: "Hall".into() },
        date: DateRef { id: uuid(4).into(), starts_at: at(86_400), ends_at: None },
        seats: vec![
            SeatAtSale { number: 12, section: Some("A".into()), row: None, grade: "R".into(), price: 100 },
            SeatAtSale { number: 13, section: None, row: Some("2".into()), grade: "S".into(), price: 50 },
        ],
        status: ReservationStatus::Held,
        created_at: at(0),
        expires_at: at(300),
        extensions: 0,
        payment: None,
    }
}

fn show(view: impl Serialize) -> Value {
    serde_json::to_value(view).unwrap()
}

#[test]
fn reservation_shows_every_key() {
    let reservation = reservation();
    let expected = json!({
        "id": id(1), "status": "held",
        "concert": {"id": id(3), "name": "Moonlight", "venue": "Hall"},
        "date": {"id": id(4), "starts_at": "1970-01-02T00:00:00Z", "ends_at": null},
        "seats": [
            {"number": 12, "section": "A", "row": null, "grade": "R", "price": 100},
            {"number": 13, "section": null, "row": "2", "grade": "S", "price": 50},
        ],
        "total": 150, "currency": "KRW", "created_at": "1970-01-01T00:00:00Z", "expires_at": "1970-01-01T00:05:00Z",
        "expires_in_s": 300, "extensions_left": 1, "payment_id": null,
    });
    assert_eq!(show(ReservationView::at(&reservation, at(0), 1, "KRW")), expected);
}

#[test]
fn reservation_reads_as_expired_from_its_instant_on() {
    let reservation = reservation();
    for (now, status, left) in [(0, "held", 300), (299, "held", 1), (300, "expired", 0), (999, "expired", 0)] {
        let shown = show(ReservationView::at(&reservation, at(now), 1, "KRW"));
        assert_eq!((shown["status"].as_str(), shown["expires_in_s"].as_i64()), (Some(status), Some(left)), "at {now}");
    }
}

#[test]
fn payment_shows_every_key_and_one_ticket_a_seat() {
    let reservation = reservation();
    let mut payment = Payment {
        id: PaymentId(uuid(9)),
        reservation: reservation.id,
        user: reservation.user,
        amount: 140,
        points_spent: 10,
        points_granted: 7,
        paid_at: at(10),
        refund: None,
    };
    let tickets = TicketCodes::keyed_from(0);
    let code = |seat| tickets.code(payment.id, seat);
    let seats = show(ReservationView::at(&reservation, at(0), 1, "KRW"))["seats"].clone();
    let mut expected = json!({
        "id": id(9), "reservation_id": id(1), "status": "paid",
        "concert": {"id": id(3), "name": "Moonlight", "venue": "Hall"},
        "date": {"id": id(4), "starts_at": "1970-01-02T00:00:00Z", "ends_at": null},
        "seats": seats, "amount": 140, "currency": "KRW", "points_spent": 10, "points_granted": 7,
        "tickets": [{"seat": 12, "code": code(12)}, {"seat": 13, "code": code(13)}],
        "paid_at": "1970-01-01T00:00:10Z", "refund": null,
    });
    assert_eq!(show(PaymentView::new(&payment, &reservation, "KRW", &tickets)), expected);

    payment.refund = Some(Refund { amount: 139, points_restored: 10, points_taken_back: 6, shortfall: 1, refunded_at: at(20) });
    expected["status"] = json!("refunded");
    expected["refund"] =
        json!({"amount": 139, "points_restored": 10, "points_taken_back": 6, "shortfall": 1, "refunded_at": "1970-01-01T00:00:20Z"});
    assert_eq!(show(PaymentView::new(&payment, &reservation, "KRW", &tickets)), expected);
}

#[test]
fn journal_lines_show_every_key() {
    let entry = WalletEntry {
        id: uuid(1).into(),
        user: uuid(2).into(),
        seq: 3,
        kind: EntryKind::Use,
        amount: -5,
        balance: 95,
        memo: Some("poster".into()),
        reservation: None,
        payment: None,
        created_at: at(1),
    };
    let expected = json!({"id": id(1), "kind": "use", "amount": -5, "balance": 95, "memo": "poster", "reservation_id": null,
        "payment_id": null, "created_at": "1970-01-01T00:00:01Z"});
    assert_eq!(show(WalletEntryView::from(&entry)), expected);

    let points = PointsEntry {
        id: uuid(1).into(),
        user: uuid(2).into(),
        seq: 1,
        kind: PointsKind::TakeBack,
        points: -5,
        balance: 0,
        payment: uuid(7).into(),
        created_at: at(1),
    };
    let expected = json!({"id": id(1), "kind": "take_back", "points": -5, "balance": 0, "payment_id": id(7),
        "created_at": "1970-01-01T00:00:01Z"});
    assert_eq!(show(RewardView::from(&points)), expected);
}

#[test]
fn admission_shows_an_absent_rate_as_null() {
    let admission = Admission { mode: AdmissionMode::Draining, max_active: 7, per_interval: None, auto: false, adaptive: false };
    let room = RoomSummary {
        mode: admission.mode,
        sold_out: false,
        open: true,
        waiting: 0,
        lanes: Vec::new(),
        max_active: 5,
        adaptive: AdaptiveState::default(),
    };
    let state = json!({"max_active": 5, "rate_per_s": null, "p99_ms": null, "error_share": null});
    let expected = json!({"mode": "draining", "max_active": 7, "per_interval": null, "adaptive": false, "state": state});
    assert_eq!(show(AdmissionView::new(admission, &room)), expected);
}

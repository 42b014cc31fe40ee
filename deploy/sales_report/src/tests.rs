//! Events that come twice, in the middle of restarts, and over real brokers: the report stays the same.

use super::report::{Report, Sales};
use super::{Broker, Source};
use boxoffice_adapters::kafka::{KafkaSink, KafkaSinkOptions};
use boxoffice_adapters::rabbitmq::RabbitSink;
use boxoffice_domain::{ConcertId, DateId, Event, PaymentId, ReservationChange, ReservationId, UserId};
use boxoffice_ports::{EventSink, OutboxRow};
use boxoffice_services::{Kafka, RabbitMq};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const CONCERT: ConcertId = ConcertId(Uuid::from_u128(7));
const PRICE: i64 = 1_000;
/// How long the brokers may take for all of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The events of so many sales of two seats; every third sale is refunded.
fn events(sales: u32) -> Vec<Event> {
    let of = |number: u32| Uuid::from_u128(u128::from(number) + 1_000);
    let mut events = Vec::new();
    for number in 0..sales {
        let (reservation, payment, user) = (ReservationId(of(number)), PaymentId(of(number)), UserId(of(number)));
        let (date, seats) = (DateId(Uuid::from_u128(8)), vec![2 * number + 1, 2 * number + 2]);
        let whole =
            |change| Event::Reservation { change, reservation, user, concert: CONCERT, date, seats: seats.clone(), total: 2 * PRICE };
        events.push(whole(ReservationChange::Held));
        let (concert, amount) = (CONCERT, 2 * PRICE);
        events.push(Event::PaymentPaid {
            payment,
            reservation,
            user,
            concert,
            amount,
            points_spent: 0,
            points_granted: 0,
            last_hold: true,
        });
        events.extend(seats.iter().map(|&seat| Event::Seat { change: ReservationChange::Confirmed, date, seat, reservation }));
        events.push(whole(ReservationChange::Confirmed));
        if number % 3 == 0 {
            events.push(Event::PaymentRefunded { payment, reservation, user, concert, amount, points_restored: 0, points_taken_back: 0 });
            events.push(whole(ReservationChange::Cancelled));
        }
    }
    events
}

fn expected(sales: u32) -> Vec<Sales> {
    let (all, refunded) = (i64::from(sales), i64::from(sales.div_ceil(3)));
    vec![Sales {
        concert: CONCERT.to_string(),
        seats_sold: 2 * (all - refunded),
        payments: all,
        taken: 2 * PRICE * all,
        refunds: refunded,
        refunded: 2 * PRICE * refunded,
    }]
}

/// The event as brokers carry it.
fn wire(number: usize, event: &Event) -> Vec<u8> {
    let data = serde_json::to_value(event).unwrap();
    let envelope = json!({ "specversion": "1.0", "id": format!("0-{number}"), "source": "/boxoffice", "type": event.kind(),
        "schemaversion": 1, "data": data });
    serde_json::to_vec(&envelope).unwrap()
}

fn with(event: &[u8], field: &str, value: Value) -> Vec<u8> {
    let mut changed: Value = serde_json::from_slice(event).unwrap();
    changed[field] = value;
    serde_json::to_vec(&changed).unwrap()
}

fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sales.db");
    (folder, path)
}

#[test]
fn events_that_come_twice_and_around_a_restart_count_once() {
    let (_folder, path) = file();
    let all: Vec<_> = events(10).iter().enumerate().map(|(number, event)| wire(number, event)).collect();
    let (first, rest) = all.split_at(17);
    assert!(Report::open(&path).unwrap().apply(first, Some(17)).unwrap());

    // The program ended after the transaction and before the acknowledgement: the same events come again, then others.
    let mut report = Report::open(&path).unwrap();
    assert_eq!(report.position().unwrap(), Some(17));
    assert!(!report.apply(first, Some(17)).unwrap(), "nothing new");
    assert!(report.apply(&[first, rest].concat(), Some(99)).unwrap());
    assert_eq!(report.sales().unwrap(), expected(10));
    assert_eq!(Report::open(&path).unwrap().position().unwrap(), Some(99));

    // All events again from the beginning, in another order.
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert!(!report.apply(&reversed, None).unwrap());
    assert_eq!(report.sales().unwrap(), expected(10));
    assert!(report.text().unwrap().contains(&CONCERT.to_string()));
}

#[test]
fn the_order_across_keys_makes_no_difference() {
    let (_folder, path) = file();
    let all: Vec<_> = events(9).iter().enumerate().rev().map(|(number, event)| wire(number, event)).collect();
    let mut report = Report::open(&path).unwrap();
    report.apply(&all, None).unwrap();
    assert_eq!(report.sales().unwrap(), expected(9));
}

#[test]
fn a_batch_that_fails_in_the_middle_changes_nothing() {
    let (_folder, path) = file();
    let all: Vec<_> = events(3).iter().enumerate().map(|(number, event)| wire(number, event)).collect();
    let mut report = Report::open(&path).unwrap();
    let paid = all.iter().find(|event| String::from_utf8_lossy(event).contains("payment.paid")).unwrap();
    for broken in [b"no event".to_vec(), with(paid, "schemaversion", json!(2)), with(paid, "data", json!({ "concert": 1 }))] {
        assert!(report.apply(&[&all[..], &[broken]].concat(), Some(5)).is_err());
        assert_eq!((report.sales().unwrap(), report.position().unwrap()), (Vec::new(), None));
    }
    let unknown = with(&all[0], "type", json!("seat.repainted"));
    assert!(!report.apply(&[unknown], None).unwrap(), "an unknown type changes no sales");
    report.apply(&all, Some(5)).unwrap();
    assert_eq!(report.sales().unwrap(), expected(3));
}

fn rows(events: &[Event]) -> Vec<OutboxRow> {
    let row = |(id, event): (usize, &Event)| OutboxRow {
        shard: 0,
        id: id as i64,
        event: event.clone(),
        occurred_at: chrono::DateTime::UNIX_EPOCH,
    };
    events.iter().enumerate().map(row).collect()
}

/// Reads until the report is complete, after ending `crashes` times between the transaction and the acknowledgement.
async fn listen(path: &Path, from: &Broker, wanted: &[Sales], crashes: u32) {
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..crashes {
        let mut report = Report::open(path).unwrap();
        let mut source = Source::open(from, &mut report).await.unwrap();
        let taken = tokio::time::timeout(PATIENCE, source.take()).await.unwrap().unwrap();
        // Not even the position is stored, as with a broker that loses it.
        report.apply(&taken.events, None).unwrap();
    }
    let mut report = Report::open(path).unwrap();
    let mut source = Source::open(from, &mut report).await.unwrap();
    while report.sales().unwrap() != wanted {
        assert!(Instant::now() < deadline, "{:?} instead of {wanted:?}", report.sales().unwrap());
        let Ok(taken) = tokio::time::timeout(Duration::from_secs(5), source.take()).await else { continue };
        let taken = taken.unwrap();
        report.apply(&taken.events, taken.position).unwrap();
        source.acknowledge().await.unwrap();
    }
}

async fn everything_twice(sink: &dyn EventSink, from: &Broker) {
    let (_folder, path) = file();
    let all = rows(&events(300));
    let (first, rest) = all.split_at(all.len() / 2);
    sink.publish(first.to_vec()).await.unwrap();
    let half = {
        let (_folder, path) = file();
        let mut report = Report::open(&path).unwrap();
        let bytes: Vec<_> = first.iter().enumerate().map(|(number, row)| wire(number, &row.event)).collect();
        report.apply(&bytes, None).unwrap();
        report.sales().unwrap()
    };
    listen(&path, from, &half, 2).await;
    // The relay was killed after publishing and publishes again.
    sink.publish(first.to_vec()).await.unwrap();
    sink.publish(rest.to_vec()).await.unwrap();
    sink.publish(all.clone()).await.unwrap();
    listen(&path, from, &expected(300), 1).await;
    // The figures after one more sale show that all repetitions before it were skipped.
    let last = rows(&events(301)).split_off(all.len());
    sink.publish(last).await.unwrap();
    listen(&path, from, &expected(301), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_from_kafka_is_right_though_events_come_again() {
    let (brokers, topic) = (Kafka::shared().brokers(), "sales-report-events".to_owned());
    let options = KafkaSinkOptions { brokers: brokers.clone(), events_topic: topic.clone(), partitions: 3, traffic: Arc::default() };
    let sink = KafkaSink::open(options).await.unwrap();
    everything_twice(&*sink, &Broker::Kafka { brokers, topic, group: "sales-report".to_owned() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_from_rabbitmq_is_right_though_events_come_again() {
    let (url, stream) = (RabbitMq::shared().url(), "sales-report-events".to_owned());
    let sink = RabbitSink::open(&url, &stream, Arc::default(), &*boxoffice_ports::contract::supervisor()).unwrap();
    everything_twice(&sink, &Broker::Rabbitmq { url, stream }).await;
}

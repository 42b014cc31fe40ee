//! A server that is killed by `kill -9` under load, and the other commands of the binary beside a running server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use boxoffice_tests::{Answer, Person, Process, at_once, eventually};
use chrono::{SecondsFormat, TimeDelta};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

fn document() -> Value {
    // The binary uses the machine's clock.
    let now = boxoffice_ports::Clock::now(&boxoffice_adapters::clock::SystemClock::default());
    let at = |days: i64| (now + TimeDelta::days(days)).to_rfc3339_opts(SecondsFormat::Secs, true);
    json!({
        "key": "crash", "name": "Crash", "venue": "Hall",
        "dates": [{
            "key": "d", "starts_at": at(3), "booking_opens_at": at(-1), "booking_closes_at": at(2),
            "seats": [{ "from": 1, "to": 5_000, "grade": "R", "price": 100 }],
        }],
    })
}

/// The ids that one person got with a success.
#[derive(Default)]
struct Succeeded {
    entries: Vec<String>,
    reservations: Vec<String>,
    payments: Vec<String>,
}

async fn use_until_it_dies(person: Person, date: String, number: u32, done: Arc<AtomicUsize>) -> (Person, Succeeded) {
    let mut succeeded = Succeeded::default();
    let id = |answer: &Answer| answer.text("id");
    for n in 0.. {
        let charge = Answer::try_to(person.writing("/wallet/charges", &format!("c{n}"), &json!({ "amount": 150 }))).await;
        let Ok(charge) = charge else { break };
        succeeded.entries.push(id(&charge.expect(201)));
        done.fetch_add(1, Ordering::Relaxed);
        let seat = number * 40 + n % 40 + 1;
        let hold = json!({ "date_id": date, "seats": [seat] });
        let Ok(held) = Answer::try_to(person.writing("/reservations", &format!("h{n}"), &hold)).await else { break };
        if held.status != 201 {
            // The seat limit, or a payment has ended the turn.
            continue;
        }
        succeeded.reservations.push(id(&held));
        let pay = json!({ "reservation_id": id(&held) });
        let Ok(paid) = Answer::try_to(person.writing("/payments", &format!("p{n}"), &pay)).await else { break };
        succeeded.payments.push(id(&paid.expect(201)));
    }
    (person, succeeded)
}

/// Every success that was answered is stored after the next start (I5).
#[tokio::test(flavor = "multi_thread")]
async fn answered_commands_survive_kill_9() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("b.db");
    let server = Process::start(&database, &[]).await.unwrap();
    let operator = server.person(true).await;
    let made = Answer::to(operator.request(Method::POST, "/admin/concerts").json(&document())).await.expect(201);
    let (concert, date) = (made.text("id"), made.text("dates/0/id"));
    eventually("the concert shows", async || (operator.get(&format!("/concerts/{concert}")).await.status == 200).then_some(())).await;
    let mut people = Vec::new();
    for _ in 0..50 {
        let mut person = server.person(false).await;
        person.enter(&concert).await;
        people.push(person);
    }
    let done = Arc::new(AtomicUsize::new(0));
    let seen = done.clone();
    let load = tokio::spawn(at_once(
        people
            .into_iter()
            .enumerate()
            .map(move |(number, person)| use_until_it_dies(person, date.clone(), number as u32, done.clone()))
            .collect::<Vec<_>>(),
    ));
    eventually("the load runs", async || (seen.load(Ordering::Relaxed) > 500).then_some(())).await;
    server.kill().await.unwrap();
    let succeeded = load.await.unwrap();

    let server = Process::start(&database, &[]).await.unwrap();
    let (mut entries, mut payments) = (0, 0);
    for (person, succeeded) in succeeded {
        let person = person.at(&server.base);
        for payment in &succeeded.payments {
            assert_eq!(person.get(&format!("/payments/{payment}")).await.expect(200).text("status"), "paid");
        }
        for reservation in &succeeded.reservations {
            person.get(&format!("/reservations/{reservation}")).await.expect(200);
        }
        let stored = person.entries().await;
        assert!(succeeded.entries.iter().all(|entry| stored.contains(entry)), "a charge that was answered is lost");
        entries += succeeded.entries.len();
        payments += succeeded.payments.len();
    }
    assert!(entries > 500 && payments > 0, "{entries} charges, {payments} payments");
    let audit = Process::run(&database, &["audit"]).await.unwrap();
    assert!(audit.status.success(), "{audit:?}");
    assert!(server.terminate().await.unwrap().success(), "SIGTERM drains and exits 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_one_file_refuses_and_import_runs_beside() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("b.db");
    let server = Process::start(&database, &[]).await.unwrap();
    let second = Process::run(&database, &["serve", "--set", "http.listen=127.0.0.1:0"]).await.unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("b.db"), "{second:?}");

    let file = folder.path().join("concerts.json");
    let mut documents = vec![document(), document()];
    documents[1]["key"] = json!("other");
    documents[1]["dates"][0]["seats"][0]["price"] = json!(-5);
    std::fs::write(&file, json!(documents).to_string()).unwrap();
    let path = file.to_str().unwrap();
    let wrong = Process::run(&database, &["import", path]).await.unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(errors.contains(&format!("{path}: [1].dates[0].seats[0].price: ")), "{errors}");
    let person = server.person(false).await;
    assert_eq!(person.get("/concerts").await.expect(200).at("items"), &json!([]), "nothing was written");

    std::fs::write(&file, json!(documents[..1]).to_string()).unwrap();
    for _ in 0..2 {
        let imported = Process::run(&database, &["import", path]).await.unwrap();
        assert!(imported.status.success(), "{imported:?}");
    }
    eventually("a running server shows an import", async || {
        (person.get("/concerts").await.at("items").as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    server.kill().await.unwrap();
}

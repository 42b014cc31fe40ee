//! A server in this process, or several side by side on one database, with a clock that can be moved.

use std::path::PathBuf;
use std::sync::Arc;

use boxoffice_adapters::clock::{SystemClock, SystemIds};
use boxoffice_app::config::{self, Layers};
use boxoffice_app::wiring::{self, Running};
use boxoffice_ports::{Clock, Ids};
use chrono::{SecondsFormat, TimeDelta};
use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::person::{Answer, Person, client};
use crate::services;
use crate::wait::{at_once, eventually};

/// How many requests [`Server::people_with_a_turn`] has in flight at once.
const CALLERS: usize = 16;

/// What differs from the defaults of a test server, as `section.key=value`.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    set: Vec<String>,
}

impl Setup {
    #[must_use]
    pub fn with(mut self, set: &str) -> Self {
        self.set.push(set.to_owned());
        self
    }

    /// On a fresh database of PostgreSQL; the shared Redis serves what is configured to use it.
    #[must_use]
    pub async fn on_postgres(self) -> Self {
        self.with("store.backend=postgres")
            .with(&format!("store.postgres_url={}", services::database().await))
            .with(&format!("redis.urls=[{:?}]", services::redis().await))
            .with(&services::redlock_setting(&services::redlock_nodes().await))
    }

    /// With Kafka at `brokers` for what is configured to use it, under topics and a group of these instances' own.
    #[must_use]
    pub fn on_kafka(self, brokers: &str) -> Self {
        let name = SystemIds.fresh();
        self.with(&format!("kafka.brokers={brokers:?}"))
            .with(&format!("kafka.commands_topic=commands-{name}"))
            .with(&format!("kafka.events_topic=events-{name}"))
            .with(&format!("kafka.group=group-{name}"))
    }

    /// With RabbitMQ at `url` for what is configured to use it, under queues and a stream of these instances' own.
    #[must_use]
    pub fn on_rabbitmq(self, url: &str) -> Self {
        let name = SystemIds.fresh();
        self.with(&format!("rabbitmq.url={url:?}"))
            .with(&format!("rabbitmq.commands_queue=commands-{name}"))
            .with(&format!("rabbitmq.events_exchange=events-{name}"))
    }

    /// What was set, to start the real binary with it.
    pub fn settings(&self) -> &[String] {
        &self.set
    }

    /// # Panics
    /// When the server does not start.
    pub async fn start(self) -> Server {
        self.start_many(1).await.remove(0)
    }

    /// Instances on the same store, which must allow several. They start at once, and share the clock.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start_many(self, count: usize) -> Vec<Server> {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let clock = Arc::new(SystemClock::default());
        join_all((0..count).map(|_| Box::pin(Server::open(folder.clone(), self.set.clone(), clock.clone())))).await
    }
}

pub struct Server {
    pub base: String,
    pub clock: Arc<SystemClock>,
    pub running: Running,
    http: Client,
    folder: Arc<TempDir>,
    set: Vec<String>,
}

impl Server {
    /// One with the defaults.
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    async fn open(folder: Arc<TempDir>, set: Vec<String>, clock: Arc<SystemClock>) -> Self {
        let file = folder.path().join("boxoffice.db");
        let own = [
            "http.listen=127.0.0.1:0".to_owned(),
            "http.workers=2".to_owned(),
            "admission.tick_ms=20".to_owned(),
            "demo.season=false".to_owned(),
            format!("store.sqlite_path={}", file.display()),
        ];
        let layers = Layers { set: own.into_iter().chain(set.iter().cloned()).collect(), ..Layers::default() };
        let settings = config::load(&layers).expect("settings");
        let running = wiring::start(settings, clock.clone()).await.expect("the server starts");
        Self { base: format!("http://{}", running.address), clock, running, http: client().build().expect("a client"), folder, set }
    }

    /// Stops it and starts a new one on the same store.
    pub async fn restart(self) -> Self {
        let Self { running, folder, set, clock, .. } = self;
        running.stop().await;
        Self::open(folder, set, clock).await
    }

    /// Checks every invariant that the store can show, and stops all of `servers`, which share it.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub async fn audit_and_stop(servers: Vec<Self>) {
        if let Some(server) = servers.first() {
            server.audit().await;
        }
        at_once(servers.into_iter().map(|server| async move { server.running.stop().await })).await;
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("boxoffice.db")
    }

    /// Moves the clock of the server and of its stores.
    pub fn advance(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }

    /// The server's time plus `seconds`, as JSON has it.
    pub fn time(&self, seconds: i64) -> String {
        time(&self.clock, seconds)
    }

    /// The client, for requests outside `/api/v1` and for those that are wrong on purpose.
    pub fn http(&self) -> &Client {
        &self.http
    }

    pub async fn person(&self) -> Person {
        Person::registered(&self.http, &self.base).await
    }

    /// A buyer whose token has the claim `lane`.
    pub async fn person_in(&self, lane: &str) -> Person {
        Person::registered_as(self.http.clone(), self.base.clone(), json!({ "name": "a buyer", "lane": lane })).await
    }

    pub async fn operator(&self) -> Person {
        Person::registered_as(self.http.clone(), self.base.clone(), json!({ "name": "an operator", "operator": true })).await
    }

    /// `count` people, each in the middle of a turn for `concert`. They join side by side, in no order.
    pub async fn people_with_a_turn(&self, count: usize, concert: &str) -> Vec<Person> {
        let callers = (0..CALLERS.min(count)).map(async |caller| {
            let mut people = Vec::new();
            for _ in (caller..count).step_by(CALLERS) {
                let mut person = self.person().await;
                person.join(concert).await;
                people.push(person);
            }
            for person in &mut people {
                person.await_turn().await;
            }
            people
        });
        join_all(callers).await.into_iter().flatten().collect()
    }

    /// Puts a concert on sale and waits until the server shows it: its id and those of its dates.
    pub async fn put_on_sale(&self, document: &Value) -> (String, Vec<String>) {
        let operator = self.operator().await;
        // The import of a large hall may take longer than its request; the same document, sent again, finds it.
        let made = Answer::when_free(|| operator.request(reqwest::Method::POST, "/admin/concerts").json(document)).await;
        assert!([200, 201].contains(&made.status), "{made:?}");
        let id = made.text("id");
        self.shows(&id).await;
        let dates = made.at("dates").as_array().into_iter().flatten();
        (id, dates.map(|date| date["id"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Waits until this instance shows a concert that was imported at another.
    pub async fn shows(&self, concert: &str) {
        let path = format!("{}/api/v1/concerts/{concert}", self.base);
        eventually("the concert shows", async || (Answer::to(self.http.get(&path)).await.status == 200).then_some(())).await;
    }

    /// Puts a concert of one date on sale: the ids of both.
    pub async fn one_date(&self, hall: Value) -> (String, String) {
        let (concert, mut dates) = self.put_on_sale(&concert(self, "concert", &[hall])).await;
        (concert, dates.remove(0))
    }

    /// Checks every invariant that the store can show.
    ///
    /// # Panics
    /// When one is broken.
    pub async fn audit(&self) {
        let report = self.running.stores.audit.audit(4).await.expect("the audit runs");
        assert!(report.breaches.is_empty(), "{:#?}", report.breaches);
    }
}

/// The time of `clock` plus `seconds`, as JSON has it.
pub(crate) fn time(clock: &SystemClock, seconds: i64) -> String {
    (clock.now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The document of a concert that is on sale now, with one date a hall.
pub fn concert(server: &Server, key: &str, halls: &[Value]) -> Value {
    concert_by(|seconds| server.time(seconds), key, halls)
}

/// The same by `time`, which formats now plus so many seconds.
pub(crate) fn concert_by(time: impl Fn(i64) -> String, key: &str, halls: &[Value]) -> Value {
    let date = |(n, hall): (usize, &Value)| {
        json!({
            "key": format!("day-{n}"),
            "starts_at": time(90_000 + n as i64), "ends_at": time(100_000),
            "booking_opens_at": time(-10), "booking_closes_at": time(80_000), "refund_closes_at": time(80_000),
            "seats": hall,
        })
    };
    json!({
        "key": key, "name": "Moonlight Tour", "venue": "Olympic Hall", "time_zone": "Asia/Seoul",
        "dates": halls.iter().enumerate().map(date).collect::<Vec<_>>(),
    })
}

/// A hall of `count` seats of one price.
pub fn seats(count: u32, price: i64) -> Value {
    json!([{ "from": 1, "to": count, "grade": "R", "price": price, "section": "A", "row": "1" }])
}

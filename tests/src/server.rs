//! A server in this process, or several side by side on one database, with a clock that can be moved.

use std::path::PathBuf;
use std::sync::Arc;

use boxoffice_adapters::clock::{SystemClock, SystemIds};
use boxoffice_app::config::{self, Layers};
use boxoffice_app::wiring::{self, Running};
use boxoffice_ports::{Clock, Ids};
use chrono::{SecondsFormat, TimeDelta};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Answer, Person, eventually, services};

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

    /// On a fresh database of PostgreSQL, with Redis at hand for whatever is configured to use it.
    #[must_use]
    pub async fn on_postgres(self) -> Self {
        let nodes: Vec<_> = services::redlock_nodes().await.iter().map(|url| format!("{url:?}")).collect();
        self.with("store.backend=postgres")
            .with(&format!("store.postgres_url={}", services::database().await))
            .with(&format!("redis.urls=[{:?}]", services::redis().await))
            .with(&format!("redis.redlock_nodes=[{}]", nodes.join(", ")))
    }

    /// With Kafka at `brokers` for whatever is configured to use it: topics and a group of these instances' own.
    #[must_use]
    pub fn on_kafka(self, brokers: &str) -> Self {
        let name = SystemIds.fresh();
        self.with(&format!("kafka.brokers={brokers:?}"))
            .with(&format!("kafka.commands_topic=commands-{name}"))
            .with(&format!("kafka.events_topic=events-{name}"))
            .with(&format!("kafka.group=group-{name}"))
    }

    /// With RabbitMQ at `url` for whatever is configured to use it: queues and a stream of these instances' own.
    #[must_use]
    pub fn on_rabbitmq(self, url: &str) -> Self {
        let name = SystemIds.fresh();
        self.with(&format!("rabbitmq.url={url:?}"))
            .with(&format!("rabbitmq.commands_queue=commands-{name}"))
            .with(&format!("rabbitmq.events_exchange=events-{name}"))
    }

    /// What was set, for whoever starts the real binary with it.
    pub fn settings(&self) -> &[String] {
        &self.set
    }

    /// # Panics
    /// When the server does not start.
    pub async fn start(self) -> Server {
        self.start_many(1).await.remove(0)
    }

    /// Instances side by side on the same store, which must be one that allows it. They share the clock.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start_many(self, count: usize) -> Vec<Server> {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let clock = Arc::new(SystemClock::default());
        let mut servers = Vec::with_capacity(count);
        for _ in 0..count {
            servers.push(Server::open(folder.clone(), self.set.clone(), clock.clone()).await);
        }
        servers
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
        Self { base: format!("http://{}", running.address), clock, running, http: crate::client().build().expect("a client"), folder, set }
    }

    /// Stops it and starts another one on the same store.
    pub async fn restart(self) -> Self {
        let Self { running, folder, set, clock, .. } = self;
        running.stop().await;
        Self::open(folder, set, clock).await
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("boxoffice.db")
    }

    /// Moves the clock of the server and of its stores.
    pub fn advance(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }

    /// The server's time, moved by `seconds`, as JSON has it.
    pub fn time(&self, seconds: i64) -> String {
        time(&self.clock, seconds)
    }

    /// A request outside `/api/v1`, or one that is wrong on purpose.
    pub fn http(&self) -> &Client {
        &self.http
    }

    pub async fn person(&self) -> Person {
        self.make(json!({ "name": "somebody" })).await
    }

    /// Somebody whose issuer puts them in a lane.
    pub async fn person_in(&self, lane: &str) -> Person {
        self.make(json!({ "name": "somebody", "lane": lane })).await
    }

    pub async fn operator(&self) -> Person {
        self.make(json!({ "name": "an operator", "operator": true })).await
    }

    async fn make(&self, body: Value) -> Person {
        let made = Answer::to(self.http.post(format!("{}/api/v1/dev/users", self.base)).json(&body)).await.expect(201);
        Person::new(self.http.clone(), self.base.clone(), &made)
    }

    /// So many people, each in the middle of a turn for `concert`.
    pub async fn people_with_a_turn(&self, count: usize, concert: &str) -> Vec<Person> {
        let mut people = Vec::with_capacity(count);
        for _ in 0..count {
            let mut person = self.person().await;
            person.join(concert).await;
            people.push(person);
        }
        for person in &mut people {
            person.await_turn().await;
        }
        people
    }

    /// Puts a concert on sale and waits until the server shows it: its id and those of its dates.
    pub async fn put_on_sale(&self, document: &Value) -> (String, Vec<String>) {
        let operator = self.operator().await;
        // Of a large hall it may take longer than a request: then the same document finds what was begun.
        let made = Answer::when_free(|| operator.request(reqwest::Method::POST, "/admin/concerts").json(document)).await;
        assert!([200, 201].contains(&made.status), "{made:?}");
        let id = made.text("id");
        self.shows(&id).await;
        let dates = made.at("dates").as_array().into_iter().flatten();
        (id, dates.map(|date| date["id"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Waits until this instance shows a concert that another one put on sale.
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

/// What `clock` says, moved by `seconds`, as JSON has it.
pub(crate) fn time(clock: &SystemClock, seconds: i64) -> String {
    (clock.now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The document of a concert that is on sale now, with one date a hall.
pub fn concert(server: &Server, key: &str, halls: &[Value]) -> Value {
    concert_by(|seconds| server.time(seconds), key, halls)
}

/// The same by another clock, which says the time moved by so many seconds.
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

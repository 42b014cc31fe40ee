//! Whole servers on Kafka and RabbitMQ: brokers, instances and PostgreSQL killed in the middle, and what a listener
//! learns of it.

mod charges;
mod events;
mod reading;
mod report;

use boxoffice_services::{Kafka, Postgres, RabbitMq};
use boxoffice_tests::{Answer, Person, Server, Setup, services};
use reqwest::RequestBuilder;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

/// So many tests have a broker of their own at the same time; others wait. Each takes some hundred megabytes.
static OWN_BROKERS: Semaphore = Semaphore::const_new(2);
/// How long somebody who repeats a request waits for its answer: for a broker or an instance to come back, and for what
/// the dead one owned to be given to others, several times over.
const REPEATED_MAX: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    Kafka,
    RabbitMq,
}

impl Log {
    /// As it is configured.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
        }
    }

    /// On PostgreSQL, all commands through this log in the broker that all tests share.
    pub(crate) async fn setup(self) -> Setup {
        let setup = self.commands(Setup::default().on_postgres().await);
        match self {
            Self::Kafka => setup.on_kafka(&services::kafka().await),
            Self::RabbitMq => setup.on_rabbitmq(&services::rabbitmq().await),
        }
    }

    fn commands(self, setup: Setup) -> Setup {
        ["seat", "wallet", "payment"].iter().fold(setup, |setup, class| setup.with(&format!("strategy.{class}={}", self.name())))
    }

    /// How many commands of `server` lie with the dead letters.
    pub(crate) async fn dead_letters(self, server: &Server) -> u64 {
        let settings = &server.running.settings;
        match self {
            Self::Kafka => reading::kafka_count(&settings.kafka.brokers, &format!("{}.dead", settings.kafka.commands_topic)).await,
            Self::RabbitMq => {
                let url = settings.rabbitmq.url.expose();
                reading::rabbitmq_count(url, &format!("{}.dead", settings.rabbitmq.commands_queue)).await
            }
        }
    }
}

/// The cases of a module, once for each log.
macro_rules! through_each_log {
    ($($case:ident)*) => {
        through_each_log!(@one kafka Kafka $($case)*);
        through_each_log!(@one rabbitmq RabbitMq $($case)*);
    };
    (@one $module:ident $log:ident $($case:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                Box::pin(super::$case(crate::brokers::Log::$log)).await;
            })*
        }
    };
}
pub(crate) use through_each_log;

/// A broker that a test may kill, or stop.
pub(crate) struct OwnBroker {
    broker: Broker,
    _permit: SemaphorePermit<'static>,
}

enum Broker {
    Kafka(Kafka),
    RabbitMq(RabbitMq),
}

impl OwnBroker {
    pub(crate) async fn start(log: Log) -> Self {
        let permit = OWN_BROKERS.acquire().await.expect("it is never closed");
        let broker = block_in_place(|| match log {
            Log::Kafka => Broker::Kafka(Kafka::start().expect("Kafka starts")),
            Log::RabbitMq => Broker::RabbitMq(RabbitMq::start().expect("RabbitMQ starts")),
        });
        Self { broker, _permit: permit }
    }

    /// With this broker for whatever is configured to use it.
    pub(crate) fn serve(&self, setup: Setup) -> Setup {
        match &self.broker {
            Broker::Kafka(kafka) => setup.on_kafka(&kafka.brokers()),
            Broker::RabbitMq(rabbitmq) => setup.on_rabbitmq(&rabbitmq.url()),
        }
    }

    /// `kill -9`, and it starts again on its data.
    fn kill_and_restart(&mut self) {
        block_in_place(|| match &mut self.broker {
            Broker::Kafka(kafka) => kafka.kill(0).and_then(|()| kafka.restart(0)),
            Broker::RabbitMq(rabbitmq) => rabbitmq.write_down().and_then(|()| rabbitmq.kill()).and_then(|()| rabbitmq.restart()),
        })
        .expect("killed, and started again");
    }

    /// Stops everything it does, as if its machine hung.
    pub(crate) fn pause(&self) {
        match &self.broker {
            Broker::Kafka(kafka) => kafka.pause(0),
            Broker::RabbitMq(rabbitmq) => rabbitmq.pause(),
        }
        .expect("stopped");
    }

    pub(crate) fn resume(&self) {
        match &self.broker {
            Broker::Kafka(kafka) => kafka.resume(0),
            Broker::RabbitMq(rabbitmq) => rabbitmq.resume(),
        }
        .expect("it goes on");
    }
}

/// A PostgreSQL of one's own, and its database.
pub(crate) fn own_postgres() -> (Postgres, String) {
    block_in_place(|| {
        let cluster = Postgres::start().expect("PostgreSQL starts");
        let url = cluster.database().expect("a database");
        (cluster, url)
    })
}

/// Where the instances are, by their numbers; one that comes back may be found elsewhere.
struct Doors(Mutex<Vec<String>>);

impl Doors {
    fn new(bases: impl IntoIterator<Item = String>) -> Self {
        Self(Mutex::new(bases.into_iter().collect()))
    }

    /// The `n`th, counted around.
    fn at(&self, n: usize) -> String {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors[n % doors.len()].clone()
    }

    fn moved(&self, n: usize, base: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[n] = base.to_owned();
    }
}

/// What those who load the servers share with whoever makes trouble meanwhile.
struct Course {
    doors: Doors,
    answered: AtomicUsize,
    trouble_is_over: AtomicBool,
}

impl Course {
    fn new(doors: Doors) -> Self {
        Self { doors, answered: AtomicUsize::new(0), trouble_is_over: AtomicBool::new(false) }
    }

    /// Waits for so many more answers than there were.
    async fn answers(&self, more: usize) {
        let wanted = self.answered.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + REPEATED_MAX;
        while self.answered.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < deadline, "the answers stopped");
            sleep(PAUSE).await;
        }
    }

    /// Lets the load come to its end.
    fn is_over(&self) {
        self.trouble_is_over.store(true, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.trouble_is_over.load(Ordering::SeqCst)
    }

    /// Repeats a request, at one instance after the other from the `n`th on, until it is answered with an outcome.
    async fn outcome(&self, who: &Person, n: usize, request: impl Fn(&Person) -> RequestBuilder) -> Answer {
        let deadline = Instant::now() + REPEATED_MAX;
        for tried in 0.. {
            let answer = Answer::try_to(request(&who.clone().at(&self.doors.at(n + tried)))).await;
            match answer {
                Ok(answer) if answer.status != 202 && answer.status != 503 && answer.code() != "idempotency_in_progress" => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    return answer;
                }
                // An instance that died says nothing.
                answer => assert!(Instant::now() < deadline, "there is no outcome: {answer:?}"),
            }
            sleep(PAUSE).await;
        }
        unreachable!("it is tried without an end")
    }
}

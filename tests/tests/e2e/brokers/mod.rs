//! Whole servers on Kafka and RabbitMQ while brokers, instances and PostgreSQL are killed, and the events that a listener
//! receives meanwhile.

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

/// How many tests may have a broker of their own at the same time. Each takes some hundred megabytes.
static OWN_BROKERS: Semaphore = Semaphore::const_new(2);
/// How long a request is repeated until it is answered: several times what a broker or an instance needs to come back,
/// and others to take over the shards of a dead one.
const REPEATED_MAX: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    Kafka,
    RabbitMq,
}

impl Log {
    /// The name of its strategy in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
        }
    }

    /// On PostgreSQL, with all commands through this log, in the broker that tests share.
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

    /// How many dead letters the commands of `server` have.
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

/// A broker that a test may kill or pause.
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

    /// With this broker for what is configured to use it.
    pub(crate) fn serve(&self, setup: Setup) -> Setup {
        match &self.broker {
            Broker::Kafka(kafka) => setup.on_kafka(&kafka.brokers()),
            Broker::RabbitMq(rabbitmq) => setup.on_rabbitmq(&rabbitmq.url()),
        }
    }

    /// `kill -9`, and a start on the same data.
    fn kill_and_restart(&mut self) {
        block_in_place(|| match &mut self.broker {
            Broker::Kafka(kafka) => kafka.kill(0).and_then(|()| kafka.restart(0)),
            Broker::RabbitMq(rabbitmq) => rabbitmq.write_down().and_then(|()| rabbitmq.kill()).and_then(|()| rabbitmq.restart()),
        })
        .expect("killed, and started again");
    }

    /// Stops its processes, as if its machine hung.
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

/// A PostgreSQL that a test may kill or pause, and the URL of a database in it.
pub(crate) fn own_postgres() -> (Postgres, String) {
    block_in_place(|| {
        let cluster = Postgres::start().expect("PostgreSQL starts");
        let url = cluster.database().expect("a database");
        (cluster, url)
    })
}

/// The addresses of the instances, by number; one that is started again has a new one.
struct Bases(Mutex<Vec<String>>);

impl Bases {
    fn new(bases: impl IntoIterator<Item = String>) -> Self {
        Self(Mutex::new(bases.into_iter().collect()))
    }

    /// The `n`th, counted around.
    fn at(&self, n: usize) -> String {
        let bases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bases[n % bases.len()].clone()
    }

    fn set(&self, n: usize, base: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[n] = base.to_owned();
    }
}

/// The state that the callers share with the test that kills something meanwhile.
struct Load {
    bases: Bases,
    answered: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn new(bases: Bases) -> Self {
        Self { bases, answered: AtomicUsize::new(0), is_over: AtomicBool::new(false) }
    }

    /// Waits for `more` answers than there are now.
    async fn answers(&self, more: usize) {
        let wanted = self.answered.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + REPEATED_MAX;
        while self.answered.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < deadline, "the answers stopped");
            sleep(PAUSE).await;
        }
    }

    /// Lets the callers end.
    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    /// Repeats a request, at one instance after the other from the `n`th on, until it is answered with an outcome.
    async fn outcome(&self, caller: &Person, n: usize, request: impl Fn(&Person) -> RequestBuilder) -> Answer {
        let deadline = Instant::now() + REPEATED_MAX;
        for tried in 0.. {
            let answer = Answer::try_to(request(&caller.clone().at(&self.bases.at(n + tried)))).await;
            match answer {
                Ok(answer) if answer.status != 202 && answer.status != 503 && answer.code() != "idempotency_in_progress" => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    return answer;
                }
                // Undecided, or the instance has died.
                answer => assert!(Instant::now() < deadline, "timed out waiting for an outcome: {answer:?}"),
            }
            sleep(PAUSE).await;
        }
        unreachable!("the loop has no end")
    }
}

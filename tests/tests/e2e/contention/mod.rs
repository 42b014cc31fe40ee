//! Many callers at once: one effect each, exact sums, and the invariants after every run.
//!
//! The same suite runs once for each strategy and for mixed ones: on PostgreSQL with two instances, on the embedded store
//! with one. Callers are spread over the instances. A strategy may make callers wait; only `simple` may refuse instead,
//! with `busy`.

mod equal;
mod line;
mod payments;
mod seats;
mod wallet;

use boxoffice_tests::{Answer, Person, Server, Setup, concert, eventually, services};
use serde_json::{Value, json};

/// The store and the strategies that the suite runs with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    /// Of seats, wallets and payments.
    strategies: [&'static str; 3],
    postgres: bool,
    queue: &'static str,
    /// One more setting.
    set: Option<&'static str>,
}

pub(crate) const fn on_postgres(seat: &'static str, wallet: &'static str, payment: &'static str, queue: &'static str) -> Stage {
    Stage { strategies: [seat, wallet, payment], postgres: true, queue, set: None }
}

pub(crate) const fn on_sqlite(seat: &'static str, wallet: &'static str, payment: &'static str) -> Stage {
    Stage { strategies: [seat, wallet, payment], postgres: false, queue: "store", set: None }
}

/// A hot row takes a few hundred compare-and-sets a second, a Redlock lock a few hundred holders.
fn is_slow(strategy: &str) -> bool {
    strategy == "optimistic" || strategy == "redlock"
}

impl Stage {
    /// With one more setting.
    pub(crate) const fn with(self, set: &'static str) -> Self {
        Self { set: Some(set), ..self }
    }

    fn has(&self, strategy: &str) -> bool {
        self.strategies.contains(&strategy)
    }

    pub(crate) async fn open(self) -> Site {
        let [seat, wallet, payment] = self.strategies;
        let setup = Setup::default()
            .with(&format!("strategy.seat={seat}"))
            .with(&format!("strategy.wallet={wallet}"))
            .with(&format!("strategy.payment={payment}"))
            .with(&format!("queue.backend={}", self.queue))
            .with("admission.max_active=100000")
            // The longest that is allowed: the machine has other work.
            .with("admission.room_wait_ms=10000")
            .with("strategy.wait_ms=60000");
        let setup = self.set.into_iter().fold(setup, Setup::with);
        let setup = if self.has("kafka") { setup.on_kafka(&services::kafka().await) } else { setup };
        let setup = if self.has("rabbitmq") { setup.on_rabbitmq(&services::rabbitmq().await) } else { setup };
        let servers = if self.postgres { setup.on_postgres().await.start_many(2).await } else { setup.start_many(1).await };
        Site { stage: self, servers }
    }
}

/// The instances of one run.
pub(crate) struct Site {
    stage: Stage,
    servers: Vec<Server>,
}

impl Site {
    fn server(&self) -> &Server {
        &self.servers[0]
    }

    /// `person` at the `n`th instance, counted around.
    fn at(&self, n: usize, person: &Person) -> Person {
        person.clone().at(&self.servers[n % self.servers.len()].base)
    }

    fn refuses(&self) -> bool {
        self.stage.has("simple")
    }

    /// A person, patient if the strategy may refuse.
    async fn person(&self) -> Person {
        let person = self.server().person().await;
        if self.refuses() { person.patiently() } else { person }
    }

    /// `count` people in the middle of a turn, spread over the instances.
    async fn people_with_a_turn(&self, count: usize, concert: &str) -> Vec<Person> {
        let people = self.server().people_with_a_turn(count, concert).await;
        let spread = people.iter().enumerate().map(|(n, person)| self.at(n, person));
        if self.refuses() { spread.map(Person::patiently).collect() } else { spread.collect() }
    }

    /// Puts a concert of one date on sale, and waits until every instance shows it.
    async fn one_date(&self, hall: Value) -> (String, String) {
        self.one_date_called("concert", hall).await
    }

    async fn one_date_called(&self, key: &str, hall: Value) -> (String, String) {
        let (concert, mut dates) = self.server().put_on_sale(&concert(self.server(), key, &[hall])).await;
        for server in &self.servers {
            server.shows(&concert).await;
        }
        (concert, dates.remove(0))
    }

    /// Checks every invariant that the store can show.
    async fn audit(&self) {
        self.server().audit().await;
    }

    /// Ends a run: no hold outlives its end (I12), and the invariants hold.
    async fn close(self) {
        let audit = &self.server().running.stores.audit;
        eventually("the sweep", async || (audit.audit(4).await.expect("the audit runs").overdue_holds == 0).then_some(())).await;
        Server::audit_and_stop(self.servers).await;
    }
}

fn count(answers: &[Answer], status: u16, code: &str) -> usize {
    answers.iter().filter(|answer| (answer.status, answer.code()) == (status, code)).count()
}

/// The body of a request that needs none.
fn nothing() -> Value {
    json!(null)
}

/// The suite of one stage: a test for each case.
macro_rules! suite {
    ($($name:ident = $stage:expr;)*) => {$(
        mod $name {
            use super::{equal, line, payments, seats, wallet};
            suite!(@cases $stage;
                wallet::charges_and_uses_are_all_applied
                equal::equal_requests_have_one_effect_and_equal_answers
                seats::one_seat_and_many_users_make_one_reservation
                seats::the_seat_limit_holds_on_many_devices
                seats::churn_ends_with_every_seat_counted
                payments::a_reservation_is_paid_once_and_refunded_once
                payments::money_for_one_of_two_reservations_pays_one
                payments::a_paid_turn_has_ended_on_every_instance
                payments::payment_against_expiry_release_and_leaving_has_one_winner
                line::one_user_joining_at_once_has_one_place
            );
        }
    )*};
    (@cases $stage:expr; $($module:ident::$case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let site = $stage.open().await;
            let began = std::time::Instant::now();
            Box::pin($module::$case(&site)).await;
            println!("{}::{}: {:.1} s", module_path!(), stringify!($case), began.elapsed().as_secs_f64());
            site.close().await;
        }
    )*};
}

suite! {
    combining = super::on_postgres("combining", "combining", "combining", "redis");
    simple = super::on_postgres("simple", "simple", "simple", "store");
    spin = super::on_postgres("spin", "spin", "spin", "redis");
    pubsub = super::on_postgres("pubsub", "pubsub", "pubsub", "redis");
    redlock = super::on_postgres("redlock", "redlock", "redlock", "store");
    pessimistic = super::on_postgres("pessimistic", "pessimistic", "pessimistic", "store");
    optimistic = super::on_postgres("optimistic", "optimistic", "optimistic", "store");
    mixed_locks = super::on_postgres("simple", "pubsub", "pessimistic", "redis");
    mixed_stores = super::on_postgres("combining", "optimistic", "spin", "store");
    kafka = super::on_postgres("kafka", "kafka", "kafka", "store").with("kafka.partitions=1");
    kafka_partitions = super::on_postgres("kafka", "kafka", "kafka", "store").with("kafka.partitions=4");
    rabbitmq = super::on_postgres("rabbitmq", "rabbitmq", "rabbitmq", "store");
    mixed_brokers = super::on_postgres("rabbitmq", "kafka", "combining", "redis");
    embedded_combining = super::on_sqlite("combining", "combining", "combining");
    embedded_memory = super::on_sqlite("memory", "memory", "memory");
    embedded_mixed = super::on_sqlite("memory", "combining", "pessimistic");
}

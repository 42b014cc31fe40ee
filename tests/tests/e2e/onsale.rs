//! A sale with faults: tabs are closed, an instance is killed and started again, another one's clock is set by hours while
//! people buy, and the room's Redis loses everything. Each buyer records, by a clock of their own, what they were
//! answered. From these records alone follows that never too many were active (I4), that each turn ended as it should,
//! and that no buyer lost a place or a part of a turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use boxoffice_services::{Redis, SetClock};
use boxoffice_tests::{Answer, Kind, PATIENCE, Person, Process, Server, Setup, at_once, eventually, seats};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::time::sleep;

const MAX_ACTIVE: usize = 6;
const BUYERS: usize = 40;
const TURN: Duration = Duration::from_secs(6);
/// More than an instance may be behind the room before it refuses to answer.
const BEHIND: Duration = Duration::from_secs(2);
const DAY_S: i64 = 86_400;

/// The addresses of the instances; one that is started again has a new one.
struct Bases(RwLock<[String; 3]>);

impl Bases {
    fn get(&self, at: usize) -> String {
        let bases = self.0.read().unwrap();
        bases[at % bases.len()].clone()
    }

    fn set(&self, at: usize, base: &str) {
        self.0.write().unwrap()[at] = base.to_owned();
    }
}

/// What a buyer does with the turn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aim {
    /// Holds a seat and pays.
    Buys,
    /// Leaves the queue.
    Leaves,
    /// Polls until the turn is over.
    Stays,
    /// Has a connection, closes it, and sends nothing for a while.
    Closes,
}

struct Buyer {
    person: Person,
    number: usize,
    aim: Aim,
    bases: Arc<Bases>,
    asked: usize,
}

/// What a buyer saw, by a clock of their own.
#[derive(Debug)]
struct Seen {
    aim: Aim,
    /// When the last poll was sent that was answered "waiting".
    waited_at: Instant,
    /// The turn lasted at least from the first to the second.
    active: (Instant, Instant),
    /// When the turn was first answered to be over.
    ended_at: Instant,
    end: String,
}

impl Buyer {
    /// Sends a request to one instance after the other, until it is not answered 503.
    async fn ask(&mut self, request: impl Fn(&Person) -> RequestBuilder) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.asked += 1;
            self.person = self.person.clone().at(&self.bases.get(self.number + self.asked));
            match Answer::try_to(request(&self.person)).await {
                Ok(answer) if answer.status != 503 => return answer,
                answer => assert!(Instant::now() < deadline, "timed out waiting for an answer: {answer:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stands(&mut self) -> String {
        let answer = self.ask(|person| person.request(Method::GET, "/queue")).await.expect(200);
        self.person.queue_token = Some(answer.text("token"));
        answer.text("status")
    }

    async fn buys(&mut self, date: &str) {
        let hold = json!({ "date_id": date, "seats": [self.number + 1] });
        let held = self.ask(|person| person.writing("/reservations", "hold", &hold)).await.expect(201).text("id");
        let pay = json!({ "reservation_id": held });
        self.ask(|person| person.writing("/payments", "pay", &pay)).await.expect(201);
    }

    async fn comes(mut self, concert: String, date: String, turns: Arc<AtomicUsize>) -> Seen {
        let joined = self.ask(|person| person.request(Method::POST, &format!("/concerts/{concert}/queue"))).await;
        self.person.queue_token = Some(joined.text("token"));
        let mut listener = match self.aim {
            // At the instance that is never killed.
            Aim::Closes => Some(self.person.clone().at(&self.bases.get(2)).listen(Kind::WebSocket).await),
            _ => None,
        };
        let (mut waited_at, mut place) = (Instant::now(), None);
        let began = loop {
            let asked_at = Instant::now();
            let answer = self.ask(|person| person.request(Method::GET, "/queue")).await.expect(200);
            self.person.queue_token = Some(answer.text("token"));
            let known = answer.number("place");
            assert_eq!(*place.get_or_insert(known), known, "a place is kept");
            match &*answer.text("status") {
                "waiting" => waited_at = asked_at,
                "active" => break Instant::now(),
                other => panic!("{other}, without a turn: {answer:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        turns.fetch_add(1, Ordering::SeqCst);
        let mut last = began;
        match self.aim {
            Aim::Buys => self.buys(&date).await,
            Aim::Leaves => {
                last = Instant::now();
                self.ask(|person| person.request(Method::DELETE, "/queue")).await;
            }
            Aim::Closes => drop(listener.take()),
            Aim::Stays => {}
        }
        // After everything was closed, nothing is sent for a long time: a request would count as presence.
        if self.aim == Aim::Closes {
            sleep(TURN).await;
        }
        let end = loop {
            let asked_at = Instant::now();
            match &*self.stands().await {
                "active" if self.aim == Aim::Stays => last = asked_at,
                // From an instance that is behind.
                "active" | "waiting" => {}
                other => break other.to_owned(),
            }
            assert!(began.elapsed() < PATIENCE, "the turn does not end");
            sleep(Duration::from_millis(50)).await;
        };
        let until = if self.aim == Aim::Stays { last.checked_sub(BEHIND).unwrap_or(began).max(began) } else { last };
        Seen { aim: self.aim, waited_at, active: (began, until), ended_at: Instant::now(), end }
    }
}

fn never_too_many(seen: &[Seen]) {
    for Seen { active: (at, _), .. } in seen {
        let together = seen.iter().filter(|other| other.active.0 <= *at && *at <= other.active.1).count();
        assert!(together <= MAX_ACTIVE, "I4: {together} at once: {seen:#?}");
    }
}

fn each_end_is_fair(seen: &[Seen]) {
    for one in seen {
        let end = match one.aim {
            Aim::Buys => "done",
            Aim::Leaves => "left",
            Aim::Stays | Aim::Closes => "expired",
        };
        assert_eq!(one.end, end, "{one:?}");
        if one.aim == Aim::Stays {
            // It began after the poll at `waited_at`, and was over before the answer at `ended_at`.
            assert!(one.ended_at - one.waited_at + BEHIND >= TURN, "a turn was cut short: {one:?}");
        }
    }
}

/// Three instances of one room: two processes, the second with a clock of its own, and one in this process, which is
/// never killed.
struct Site {
    server: Server,
    set: Vec<String>,
    clock: SetClock,
    bases: Arc<Bases>,
    processes: [Option<Process>; 2],
}

impl Site {
    async fn start(setup: Setup) -> Self {
        let setup = setup
            .with(&format!("admission.max_active={MAX_ACTIVE}"))
            .with(&format!("admission.active_ttl_s={}", TURN.as_secs()))
            .with("presence.grace_s=1");
        let set = setup.settings().to_vec();
        let server = setup.start().await;
        let bases = Arc::new(Bases(RwLock::new([const { String::new() }; 3])));
        bases.set(2, &server.base);
        let mut site = Self { server, set, clock: SetClock::start().unwrap(), bases, processes: [None, None] };
        site.start_again(0).await;
        site.start_again(1).await;
        site
    }

    /// Starts a process, after `kill -9` if it runs.
    async fn start_again(&mut self, at: usize) {
        if let Some(process) = self.processes[at].take() {
            process.kill().await.unwrap();
        }
        let (database, set): (_, Vec<_>) = (self.server.database(), self.set.iter().map(String::as_str).collect());
        let started = if at == 1 { Process::start_by(&self.clock, &database, &set).await } else { Process::start(&database, &set).await };
        let process = started.unwrap();
        self.bases.set(at, &process.base);
        self.processes[at] = Some(process);
    }
}

/// Runs the sale; in its middle `empty_the_log` empties the log of the room, if it can be lost.
async fn a_sale_through_kills_and_set_clocks(setup: Setup, empty_the_log: impl AsyncFn()) {
    let mut site = Site::start(setup).await;
    let (concert, date) = site.server.one_date(seats(50, 1_000)).await;
    let mut buyers = Vec::new();
    for number in 0..BUYERS {
        let person = site.server.person().await;
        person.charge(10_000).await;
        let aim = [Aim::Buys, Aim::Leaves, Aim::Stays, Aim::Closes][number % 4];
        buyers.push(Buyer { person, number, aim, bases: site.bases.clone(), asked: 0 });
    }
    for at in 0..2 {
        let person = buyers[0].person.clone().at(&site.bases.get(at));
        eventually("the concert shows", async || (person.get(&format!("/concerts/{concert}")).await.status == 200).then_some(())).await;
    }
    let turns = Arc::new(AtomicUsize::new(0));
    let coming: Vec<_> = buyers.into_iter().map(|buyer| buyer.comes(concert.clone(), date.clone(), turns.clone())).collect();
    let crowd = tokio::spawn(at_once(coming));
    let so_many = async |count: usize| eventually("turns", async || (turns.load(Ordering::SeqCst) >= count).then_some(())).await;
    so_many(MAX_ACTIVE).await;
    site.clock.set(3_600).unwrap();
    so_many(BUYERS / 5).await;
    site.start_again(0).await;
    so_many(BUYERS * 2 / 5).await;
    site.clock.set(-3_600).unwrap();
    empty_the_log().await;
    so_many(BUYERS * 3 / 5).await;
    site.clock.set(DAY_S).unwrap();
    site.start_again(1).await;
    so_many(BUYERS * 4 / 5).await;
    site.clock.set(0).unwrap();
    let seen = crowd.await.unwrap();
    never_too_many(&seen);
    each_end_is_fair(&seen);
    let stats = site.server.operator().await.get(&format!("/admin/concerts/{concert}/stats")).await.expect(200);
    let bought = (BUYERS / 4) as i64;
    assert_eq!((stats.number("available"), stats.number("revenue")), (50 - bought, bought * 1_000));
    site.server.audit().await;
}

/// Never too many are active (I4).
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_through_kills_and_set_clocks_is_fair_on_postgres() {
    a_sale_through_kills_and_set_clocks(Setup::default().on_postgres().await, async || {}).await;
}

/// Never too many are active (I4), though the log of the room is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_through_kills_and_set_clocks_is_fair_on_redis() {
    let node = Redis::start().unwrap();
    let setup = Setup::default().on_postgres().await.with("queue.backend=redis").with(&format!("redis.urls=[{:?}]", node.url()));
    a_sale_through_kills_and_set_clocks(setup, async || node.flush().unwrap()).await;
}

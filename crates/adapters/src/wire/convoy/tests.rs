use super::*;
use crate::wire::sequence::Texts;
use boxoffice_domain::UserId;
use std::sync::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Keeps the messages that it carried; each convoy needs a permit.
struct Road {
    carried: Mutex<Vec<(usize, Vec<Vec<String>>)>>,
    open: Semaphore,
    /// Messages that hold this text fail.
    failing: &'static str,
}

#[async_trait]
impl Carrier for Road {
    type Failure = &'static str;
    async fn carry(&self, shard: usize, messages: Vec<LogMessage>) -> Vec<Result<(), Self::Failure>> {
        let texts = |message: &LogMessage| {
            let (mut texts, mut all) = (Texts::new(message.bytes.clone()), Vec::new());
            while let Some(text) = texts.next() {
                all.push(String::from_utf8(text.to_vec()).unwrap());
            }
            assert_eq!((all.len() > 1, message.id), (message.is_sequence, id(&all[0])));
            all
        };
        let texts: Vec<_> = messages.iter().map(texts).collect();
        let outcomes = texts.iter().map(|all| if all.iter().any(|text| text == self.failing) { Err("failed") } else { Ok(()) }).collect();
        self.carried.lock().unwrap().push((shard, texts));
        self.open.acquire().await.unwrap().forget();
        outcomes
    }
}

impl Road {
    fn new(failing: &'static str) -> Arc<Self> {
        Arc::new(Self { carried: Mutex::default(), open: Semaphore::new(0), failing })
    }

    fn carried(&self) -> Vec<(usize, Vec<Vec<String>>)> {
        self.carried.lock().unwrap().clone()
    }

    async fn has_carried(&self, convoys: usize) {
        while self.carried().len() < convoys {
            tokio::task::yield_now().await;
        }
    }
}

fn id(text: &str) -> CommandId {
    CommandId::derive(UserId(Uuid::nil()), text)
}

type Sent = tokio::task::JoinHandle<Result<(), Unsent<&'static str>>>;

async fn send(convoys: &Arc<Convoys<&'static str>>, shard: usize, text: &str) -> Sent {
    let (convoys, text) = (convoys.clone(), text.to_owned());
    let key = Key::Account(UserId(Uuid::nil()));
    let sent = tokio::spawn(async move { convoys.append(shard, id(&text), key, text.into_bytes()).await });
    tokio::task::yield_now().await;
    sent
}

async fn send_all(convoys: &Arc<Convoys<&'static str>>, shard: usize, texts: &[&str]) -> Vec<Sent> {
    let mut sent = Vec::new();
    for text in texts {
        sent.push(send(convoys, shard, text).await);
    }
    sent
}

fn texts(of: &[&[&str]]) -> Vec<Vec<String>> {
    of.iter().map(|texts| texts.iter().map(|&text| text.to_owned()).collect()).collect()
}

#[tokio::test(start_paused = true)]
async fn commands_that_queue_up_go_together_in_each_shard() {
    let road = Road::new("");
    let convoys = Arc::new(Convoys::start(&road, 2, "road", &*boxoffice_ports::contract::supervisor()));
    let mut sent = send_all(&convoys, 0, &["a"]).await;
    road.has_carried(1).await;
    sent.extend(send_all(&convoys, 0, &["b", "c", "d"]).await);
    sent.extend(send_all(&convoys, 1, &["e"]).await);
    road.has_carried(2).await;
    assert_eq!(road.carried(), [(0, texts(&[&["a"]])), (1, texts(&[&["e"]]))], "the rest waits for the outcome of the first");
    road.open.add_permits(3);
    for sent in sent {
        assert_eq!(sent.await.unwrap(), Ok(()));
    }
    assert_eq!(road.carried()[2..], [(0, texts(&[&["b", "c", "d"]]))]);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_bounded_and_its_commands_share_its_outcome_alone() {
    let long = "x".repeat(MESSAGE_BYTES_MAX + 1);
    let road = Road::new("failing");
    let convoys = Arc::new(Convoys::start(&road, 1, "road", &*boxoffice_ports::contract::supervisor()));
    let first = send(&convoys, 0, "first").await;
    road.has_carried(1).await;
    let sent = send_all(&convoys, 0, &["a", "failing", &long, "b"]).await;
    let many: Vec<_> = (0..=MESSAGE_COMMANDS_MAX).map(|n| n.to_string()).collect();
    let many = send_all(&convoys, 0, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    road.open.add_permits(2);
    assert_eq!(first.await.unwrap(), Ok(()));
    let mut outcomes = Vec::new();
    for sent in sent.into_iter().chain(many) {
        outcomes.push(sent.await.unwrap());
    }
    let failed = Err(Unsent::Failed("failed"));
    assert_eq!(outcomes[..2], [failed.clone(), failed]);
    assert!(outcomes[2..].iter().all(Result::is_ok));
    let lengths: Vec<_> = road.carried()[1].1.iter().map(Vec::len).collect();
    assert_eq!(lengths, [2, 1, MESSAGE_COMMANDS_MAX, 2]);
}

#[tokio::test(start_paused = true)]
async fn commands_of_callers_that_gave_up_or_waited_too_long_are_not_sent() {
    let road = Road::new("");
    let convoys = Arc::new(Convoys::start(&road, 1, "road", &*boxoffice_ports::contract::supervisor()));
    let first = send(&convoys, 0, "first").await;
    road.has_carried(1).await;
    let late = send(&convoys, 0, "late").await;
    tokio::time::advance(TURN_MAX + Duration::from_millis(1)).await;
    let gone = send(&convoys, 0, "gone").await;
    let last = send(&convoys, 0, "last").await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    road.open.add_permits(2);
    assert_eq!((first.await.unwrap(), last.await.unwrap()), (Ok(()), Ok(())));
    assert_eq!(late.await.unwrap(), Err(Unsent::Late(TURN_MAX)));
    assert_eq!(road.carried()[1..], [(0, texts(&[&["last"]]))]);
}

#[tokio::test(start_paused = true)]
async fn a_command_beyond_the_bound_is_refused_at_once() {
    let road = Road::new("");
    let convoys = Arc::new(Convoys::start(&road, 1, "road", &*boxoffice_ports::contract::supervisor()));
    let first = send(&convoys, 0, "first").await;
    road.has_carried(1).await;
    let waiting = send_all(&convoys, 0, &vec!["one"; WAITING_MAX]).await;
    assert_eq!(send(&convoys, 0, "next").await.await.unwrap(), Err(Unsent::Full));
    drop(waiting);
    drop(Arc::into_inner(convoys));
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_task_has_failed_goes_on_with_the_queued_commands() {
    let (road, tasks) = (Road::new(""), boxoffice_ports::contract::supervisor());
    let convoys = Arc::new(Convoys::start(&road, 1, "road", &*tasks));
    let first = send(&convoys, 0, "first").await;
    road.has_carried(1).await;
    let next = send(&convoys, 0, "next").await;
    assert_eq!(tasks.strike("road.append.0"), 1);
    assert_eq!(first.await.unwrap(), Err(Unsent::Late(Duration::ZERO)), "whether it arrived is unknown");
    road.open.add_permits(2);
    assert_eq!(next.await.unwrap(), Ok(()));
    assert_eq!((&road.carried()[1..], tasks.failures("road")), (&[(0, texts(&[&["next"]]))][..], 1));
}

//! Whole servers in this process.

#[cfg(all(feature = "postgres", feature = "redis"))]
mod instances;
#[cfg(all(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod rooms;
#[cfg(feature = "kafka")]
mod scratch;

mod tasks;

use super::*;
use crate::config::{Layers, load};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn settings(set: &[&str]) -> Settings {
    let set = ["http.listen=127.0.0.1:0", "http.workers=1"].iter().chain(set).map(|key| (*key).to_owned()).collect();
    load(&Layers { set, ..Layers::default() }).unwrap()
}

async fn started(set: &[&str]) -> Result<Running, StartError> {
    start(settings(set), Arc::new(SystemClock::default())).await
}

/// The status line of an answer.
async fn get(address: SocketAddr, path: &'static str) -> io::Result<String> {
    Ok(get_body(address, path).await?.lines().next().unwrap_or_default().to_owned())
}

/// A whole answer, its head included.
async fn get_body(address: SocketAddr, path: &'static str) -> io::Result<String> {
    let call = move || {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    tokio::task::spawn_blocking(call).await.map_err(io::Error::other)?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_answers_until_it_is_stopped() {
    let running = started(&["store.backend=memory", "demo.season=true"]).await.unwrap();
    let address = running.address;
    assert_eq!(get(address, "/health/live").await.unwrap(), "HTTP/1.1 200 OK");
    assert_eq!(get(address, "/api/v1/concerts").await.unwrap(), "HTTP/1.1 200 OK");
    assert_eq!(running.stores.queries.catalog().await.unwrap().len(), 3);
    running.stop().await;
    assert!(get(address, "/health/live").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_strategy_starts_on_the_memory_store() {
    for strategy in ["combining", "pessimistic", "optimistic", "memory"] {
        let [seat, wallet, payment] = ["seat", "wallet", "payment"].map(|class| format!("strategy.{class}={strategy}"));
        let running = started(&["store.backend=memory", "strategy.lanes=2", &seat, &wallet, &payment]).await.unwrap();
        assert_eq!(get(running.address, "/health/ready").await.unwrap(), "HTTP/1.1 200 OK", "{strategy}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_named_in_the_error() {
    let running = started(&["store.backend=memory"]).await.unwrap();
    let listen = format!("http.listen={}", running.address);
    let refusal = started(&["store.backend=memory", &listen]).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refusal.contains("http.listen") && refusal.contains(&running.address.to_string()), "{refusal}");
    running.stop().await;
}

#[test]
fn settings_that_instances_do_not_share_are_warned_of() {
    let postgres = ["store.backend=postgres", "store.postgres_url=postgres://db/shop"];
    let warned = |set: &[&str]| warnings(&settings(&[&postgres, set].concat()));
    assert_eq!(warned(&[]), [""; 0]);
    let warning = warned(&["queue.backend=memory", "strategy.wallet=memory"]);
    assert!(matches!(&warning[..], [queue, strategy] if queue.contains("queue.backend") && strategy.contains("strategy.wallet")));
    assert_eq!(warnings(&settings(&["queue.backend=memory", "strategy.wallet=memory"])), [""; 0], "one instance alone needs no warning");
    let nodes =
        |last: &str| warned(&["strategy.seat=redlock", &format!("redis.redlock_nodes=[\"redis://a\",\"redis://b\",\"redis://c\"{last}]")]);
    assert_eq!((nodes("").len(), nodes(",\"redis://d\"").len()), (0, 1));
}

#[tokio::test]
async fn commands_beside_a_server_need_a_store_that_lasts() {
    let memory = settings(&["store.backend=memory"]);
    assert!(matches!(open_stores(&memory).await, Err(StartError::NothingKept)));
    assert!(matches!(migrate(&memory).await, Err(StartError::NothingKept)));
}

/// The error of a start on the memory store with `set` over it.
#[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "redis", feature = "kafka", feature = "rabbitmq")))]
async fn refusal(set: &[&str]) -> String {
    started(&[&["store.backend=memory"], set].concat()).await.err().map(|error| error.to_string()).unwrap_or_default()
}

#[cfg(not(feature = "sqlite"))]
#[tokio::test]
async fn sqlite_is_refused_by_a_build_without_it() {
    let refused = refusal(&["store.backend=sqlite"]).await;
    assert!(refused.contains("store.backend = \"sqlite\"") && refused.contains("feature `sqlite`"), "{refused}");
}

#[cfg(not(feature = "postgres"))]
#[tokio::test]
async fn postgres_is_refused_by_a_build_without_it() {
    let refused = refusal(&["store.backend=postgres", "store.postgres_url=postgres://db/shop"]).await;
    assert!(refused.contains("store.backend = \"postgres\"") && refused.contains("feature `postgres`"), "{refused}");
}

#[cfg(not(feature = "redis"))]
#[tokio::test]
async fn settings_that_need_redis_are_refused_by_a_build_without_it() {
    let (one, nodes) = ("redis.urls=[\"redis://a\"]", "redis.redlock_nodes=[\"redis://a\",\"redis://b\",\"redis://c\"]");
    for (set, named) in [
        (["queue.backend=redis", one], "queue.backend = \"redis\""),
        (["strategy.seat=simple", one], "strategy.seat = \"simple\""),
        (["strategy.wallet=spin", one], "strategy.wallet = \"spin\""),
        (["strategy.payment=pubsub", one], "strategy.payment = \"pubsub\""),
        (["strategy.seat=redlock", nodes], "strategy.seat = \"redlock\""),
        (["strategy.seat=memory", one], "redis.urls"),
    ] {
        let refused = refusal(&set).await;
        assert!(refused.contains(named) && refused.contains("feature `redis`"), "{set:?}: {refused}");
    }
}

#[cfg(not(feature = "kafka"))]
#[tokio::test]
async fn kafka_is_refused_by_a_build_without_it() {
    for (set, named) in [("strategy.wallet=kafka", "strategy.wallet = \"kafka\""), ("events.sink=kafka", "events.sink = \"kafka\"")] {
        let refused = refusal(&[set, "kafka.brokers=127.0.0.1:9092"]).await;
        assert!(refused.contains(named) && refused.contains("feature `kafka`"), "{refused}");
    }
}

#[cfg(not(feature = "rabbitmq"))]
#[tokio::test]
async fn rabbitmq_is_refused_by_a_build_without_it() {
    for (set, named) in [("strategy.seat=rabbitmq", "strategy.seat = \"rabbitmq\""), ("events.sink=rabbitmq", "events.sink = \"rabbitmq\"")]
    {
        let refused = refusal(&[set, "rabbitmq.url=amqp://a"]).await;
        assert!(refused.contains(named) && refused.contains("feature `rabbitmq`"), "{refused}");
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_file_serves_one_server_at_a_time_and_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("store.sqlite_path={}", folder.path().join("shop.db").display());
    assert!(matches!(open_existing_stores(&settings(&[&path])).await, Err(StartError::NoStore(_))));

    let first = started(&[&path]).await.unwrap();
    let season = first.stores.queries.catalog().await.unwrap();
    assert_eq!(season.len(), 3);
    assert!(started(&[&path]).await.is_err(), "a second server on the same file");
    let beside = open_existing_stores(&settings(&[&path])).await.unwrap();
    assert_eq!(beside.queries.catalog().await.unwrap(), season);
    drop(beside);
    first.stop().await;

    let second = started(&[&path]).await.unwrap();
    assert_eq!(second.stores.queries.catalog().await.unwrap(), season, "the season is loaded once");
    second.stop().await;
}

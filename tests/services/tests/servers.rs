//! PostgreSQL and Redis can be killed, paused and started again.

use boxoffice_services::{Postgres, Redis};

#[test]
fn postgres_keeps_what_was_committed_over_a_kill() {
    let mut server = Postgres::start().expect("it starts");
    server
        .template("shop", |url| drop(server.sql_in(url, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").expect("sql")))
        .expect("made");
    let one = server.database_like("shop").expect("a copy");
    let other = server.database_like("shop").expect("another");
    server.sql_in(&one, "UPDATE t SET n = 8").expect("sql");
    server.kill().expect("killed");
    assert!(server.sql_in(&one, "SELECT n FROM t").is_err());
    server.restart().expect("it starts again");
    let read = |url: &str| server.sql_in(url, "SELECT n FROM t").expect("sql").trim().to_owned();
    assert_eq!((read(&one), read(&other)), ("8".to_owned(), "7".to_owned()));
}

#[test]
fn redis_is_empty_after_a_kill_and_goes_on_after_a_pause() {
    let mut node = Redis::start().expect("it starts");
    assert_eq!(node.command(&["SET", "a", "1"]).expect("answered"), "+OK");
    node.pause().expect("hung");
    node.resume().expect("it goes on");
    assert_eq!(node.command(&["EXISTS", "a"]).expect("answered"), ":1");
    node.flush().expect("flushed");
    assert_eq!(node.command(&["EXISTS", "a"]).expect("answered"), ":0");
    assert_eq!(node.command(&["SET", "a", "1"]).expect("answered"), "+OK");
    node.kill().expect("killed");
    assert!(node.command(&["PING"]).is_err());
    node.restart().expect("it starts again");
    assert_eq!(node.command(&["EXISTS", "a"]).expect("answered"), ":0");
}

/// A killed server may keep its port for a moment.
#[test]
fn postgres_starts_again_once_it_can() {
    let mut postgres = Postgres::start().unwrap();
    postgres.sql("CREATE TABLE kept AS SELECT 7 AS value").unwrap();
    postgres.kill().unwrap();
    let taken = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, postgres.port())).unwrap();
    let later = std::thread::spawn(move || {
        // Longer than the first attempt to start takes to fail.
        std::thread::sleep(std::time::Duration::from_millis(700));
        drop(taken);
    });
    postgres.restart().unwrap();
    later.join().unwrap();
    assert_eq!(postgres.sql("SELECT value FROM kept").unwrap().trim(), "7");
}

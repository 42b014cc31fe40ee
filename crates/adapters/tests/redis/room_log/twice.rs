//! A proxy that sends a command again as if its answer was lost, as a Cluster's client does by itself.

use boxoffice_domain::waiting::RoomInput;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::*;

/// Longer than any command or answer here.
const LONGEST: usize = 64 << 10;

/// Sends each script to the node a second time, once the test allows it, and forwards the second answer.
async fn proxy(node: &Server) -> (String, mpsc::Receiver<oneshot::Sender<()>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("redis://{}", socket.local_addr().expect("an address"));
    let (sender, held) = mpsc::channel(1);
    let port = node.port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = socket.accept().await {
            let (sender, mut server) = (sender.clone(), TcpStream::connect(("127.0.0.1", port)).await.expect("a node"));
            tokio::spawn(async move {
                let (mut command, mut answer) = (vec![0; LONGEST], vec![0; LONGEST]);
                loop {
                    let Ok(length @ 1..) = client.read(&mut command).await else { return };
                    server.write_all(&command[..length]).await.expect("sent");
                    let mut got = server.read(&mut answer).await.expect("an answer");
                    if command[..length].windows(7).any(|word| word == b"EVALSHA") && !answer.starts_with(b"-NOSCRIPT") {
                        let (go, gone) = oneshot::channel();
                        sender.send(go).await.expect("a test");
                        gone.await.expect("a test");
                        server.write_all(&command[..length]).await.expect("sent");
                        got = server.read(&mut answer).await.expect("an answer");
                    }
                    client.write_all(&answer[..got]).await.expect("forwarded");
                }
            });
        }
    });
    (url, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_sent_twice_is_appended_once() {
    let node = Server::start().expect("Redis starts");
    let mut direct = Replica::begin(at(&node), fresh()).await;
    direct.append().await;
    let (url, mut held) = proxy(&node).await;
    let log = instance(&[url], Arc::default());
    let (concert, position) = (direct.concert, direct.position);
    for others_after in [false, true] {
        let since = direct.position;
        let inputs = vec![RoomInput::Reserve { to: 1_000_000 + u64::from(others_after) }];
        let sent = inputs.clone();
        let call = {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.exchange(concert, since, sent).await })
        };
        let go = held.recv().await.expect("it was sent");
        if others_after {
            direct.append().await;
        }
        go.send(()).expect("it waits");
        let answer = call.await.expect("no panic");
        direct.catch_up().await;
        let count = direct.history.iter().filter(|input| **input >= 1_000_000).count();
        assert_eq!(count, 1 + usize::from(others_after), "once each");
        if others_after {
            assert!(matches!(answer, Err(RoomLogError::Unavailable(_))), "it may have been: {answer:?}");
        } else {
            let Ok(Exchanged::Records { records, appended: true, .. }) = answer else { panic!("{answer:?}") };
            assert_eq!(records.iter().map(|record| (record.seq, record.inputs.clone())).collect::<Vec<_>>(), [(position.seq + 1, inputs)]);
        }
    }
}

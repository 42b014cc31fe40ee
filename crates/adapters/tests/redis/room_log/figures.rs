//! The memory of joins in Redis, and the time to append and read them: printed, not asserted.

use boxoffice_domain::waiting::{Lane, RoomInput};
use boxoffice_ports::contract::build::user;

use super::*;

const PER_RECORD: usize = 500;

async fn measure(joins: usize) {
    let node = Server::start().expect("Redis starts");
    let (log, concert) = (at(&node), fresh());
    assert!(log.begin(concert, Vec::new()).await.expect("an answer"));
    let Exchanged::Begin { position: start, .. } = log.exchange(concert, LogPosition::default(), Vec::new()).await.expect("an answer")
    else {
        panic!("it has begun")
    };
    let (used, began) = (info(&node, "memory", "used_memory"), Instant::now());
    let mut position = start;
    for _ in 0..joins / PER_RECORD {
        let inputs = (0..PER_RECORD).map(|_| RoomInput::Join { user: user(), entry: fresh(), lane: Lane(0) }).collect();
        let exchanged = log.exchange(concert, position, inputs).await.expect("an answer");
        let Exchanged::Records { appended: true, records, .. } = exchanged else { panic!("{exchanged:?}") };
        position.seq = records.last().expect("one's own").seq;
    }
    let (took, bytes) = (began.elapsed(), info(&node, "memory", "used_memory") - used);
    println!(
        "{joins} joins in records of {PER_RECORD}: {bytes} bytes in Redis, {:.1} each; appended in {took:.2?}",
        bytes as f64 / joins as f64
    );

    let (began, mut read, mut answers, mut position) = (Instant::now(), 0, 0, start);
    while read < joins {
        let exchanged = log.exchange(concert, position, Vec::new()).await.expect("an answer");
        let Exchanged::Records { records, .. } = exchanged else { panic!("{exchanged:?}") };
        read += records.iter().map(|record| record.inputs.len()).sum::<usize>();
        (position.seq, answers) = (records.last().expect("more").seq, answers + 1);
    }
    println!("read back in {answers} answers in {:.2?}", began.elapsed());
    assert_eq!(read, joins);

    let (began, idle) = (Instant::now(), 1_000);
    for _ in 0..idle {
        log.exchange(concert, position, Vec::new()).await.expect("an answer");
    }
    println!("an exchange of nothing, one after the other: {:.1?} each", began.elapsed() / idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_joins_are_measured() {
    measure(20_000).await;
}

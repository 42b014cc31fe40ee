//! Answers reach the instance that waits for them.

use std::time::Duration;

use boxoffice_domain::{Decision, Rejection, Reply};
use chrono::{DateTime, TimeDelta};
use tokio::time::timeout;

use super::super::build::fresh;
use super::case::{LONG, LogBroker, instance, listen};
use crate::{Answer, AnswerReader};

fn answer(at: usize) -> Answer {
    let refused = Reply {
        decision: Decision::Refused(Rejection::InsufficientBalance),
        decided_at: DateTime::UNIX_EPOCH + TimeDelta::microseconds(at as i64),
        replayed: at.is_multiple_of(2),
    };
    let reply = if at.is_multiple_of(3) { Err(format!("reason {at}")) } else { Ok(refused) };
    Answer { command: fresh(), reply }
}

fn sorted(mut answers: Vec<Answer>) -> Vec<Answer> {
    answers.sort_by_key(|answer| answer.command);
    answers
}

async fn receive(reader: &mut Box<dyn AnswerReader>, count: usize) -> Vec<Answer> {
    let mut received = Vec::new();
    while received.len() < count {
        match timeout(LONG, reader.next()).await {
            Ok(answers) => received.extend(answers),
            Err(_) => panic!("only {} of {count} came", received.len()),
        }
    }
    sorted(received)
}

pub async fn answers_reach_their_instance_alone(broker: Box<dyn LogBroker>) {
    let (one, other) = (broker.instance().await, broker.instance().await);
    let (first, second) = (instance(), instance());
    let (mut at_first, mut at_second) = (listen(&one, first).await, listen(&other, second).await);
    // So many others that some share a queue or partition of answers.
    for at in 0..30 {
        one.answer(instance(), vec![answer(at)]).await.expect("sent");
    }
    let (to_first, to_second): (Vec<_>, Vec<_>) = ((1..1_200).map(answer).collect(), (1..400).map(answer).collect());
    for (log, instance, answers) in [(&other, first, &to_first), (&one, second, &to_second)] {
        for part in answers.chunks(350) {
            timeout(LONG, log.answer(instance, part.to_vec())).await.expect("in time").expect("sent");
        }
    }
    assert_eq!(receive(&mut at_first, to_first.len()).await, sorted(to_first));
    assert_eq!(receive(&mut at_second, to_second.len()).await, sorted(to_second));
}

pub async fn a_reader_that_stops_waiting_misses_no_answer(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let own = instance();
    let mut reader = listen(&log, own).await;
    for at in 0..50 {
        let sent = vec![answer(at)];
        assert!(timeout(Duration::from_micros(at as u64 * 50), reader.next()).await.is_err(), "no answer yet");
        timeout(LONG, log.answer(own, sent.clone())).await.expect("in time").expect("sent");
        assert_eq!(receive(&mut reader, 1).await, sent);
    }
}

pub async fn answers_to_an_unknown_instance_do_no_harm(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let (own, gone) = (instance(), instance());
    let mut reader = listen(&log, own).await;
    drop(listen(&log, gone).await);
    for to in [gone, instance()] {
        timeout(LONG, log.answer(to, (0..10).map(answer).collect())).await.expect("in time").expect("losing them is no error");
    }
    timeout(LONG, log.answer(own, Vec::new())).await.expect("in time").expect("sending no answers is no error");
    let sent = vec![answer(1)];
    timeout(LONG, log.answer(own, sent.clone())).await.expect("in time").expect("sent");
    assert_eq!(receive(&mut reader, 1).await, sent);
}

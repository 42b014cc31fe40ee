//! What every command log must do.
//!
//! Each case has a log of its own, empty and with several shards. Readers of an instance are gone when they are dropped:
//! what they took and did not acknowledge is for the next. Whatever comes after a command in its shard comes after it
//! again, so a later command that has arrived proves that an earlier one will not.

mod taking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Decision, Key, Rejection, Reply, UserId};
use chrono::{DateTime, TimeDelta};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::taking::{Taking, by_key, drain, firsts, ids, take_first};
use super::build::{charge, fresh, user};
use crate::{Answer, AnswerReader, CommandLog, CommandReader, InstanceId, LoggedCommand};

/// Longer than any case needs.
const LONG: Duration = Duration::from_secs(60);
/// What a reader takes at once where it does not matter.
const TAKEN_MAX: usize = 100;

/// A log, and what lies beside the port: what another program may put into it, and where its dead letters are.
#[async_trait]
pub trait LogBroker: Send + Sync {
    /// Another instance of the same log, with readers for every shard.
    async fn instance(&self) -> Arc<dyn CommandLog>;
    /// Puts bytes into the shard of `key`.
    async fn put(&self, key: Key, bytes: Vec<u8>);
    /// All dead letters as they came, each with its reason. Waits for `count` of them.
    async fn dead_letters(&self, count: usize) -> Vec<(Vec<u8>, String)>;
}

/// One test for each case: `command_log_contract!(make_broker)`, where `async fn make_broker() -> Box<dyn LogBroker>`
/// makes a new, empty log with three shards or more.
#[macro_export]
macro_rules! command_log_contract {
    ($make:path) => {
        $crate::contract_cases!($make; command_log {
            what_was_appended_is_taken_as_it_was_and_in_order
            what_was_acknowledged_does_not_come_again
            what_was_not_acknowledged_comes_again
            acknowledging_covers_what_was_taken_and_nothing_else
            acknowledging_begins_with_what_was_taken_first
            no_more_is_taken_than_asked_for
            what_was_appended_at_once_may_be_taken_in_parts
            whoever_stops_taking_misses_nothing
            two_instances_share_the_shards_and_lose_nothing
            appends_of_many_callers_at_once_are_all_there
            dead_letters_are_kept_with_their_reason_and_block_nobody
            unreadable_messages_are_dead_letters_and_block_nobody
            answers_reach_their_instance_alone
            whoever_stops_listening_misses_no_answer
            answers_to_nobody_harm_nobody
        });
    };
}

fn instance() -> InstanceId {
    InstanceId(fresh())
}

/// The `at`th command of a user: its amount says which.
fn command(of: UserId, at: usize) -> LoggedCommand {
    let accepted_at = DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_800_000_000_000_001 + at as i64);
    LoggedCommand { request: charge(of, &at.to_string(), 1 + at as i64), reply_to: instance(), accepted_at }
}

fn commands(of: UserId, count: usize) -> Vec<LoggedCommand> {
    (0..count).map(|at| command(of, at)).collect()
}

fn key(of: &LoggedCommand) -> Key {
    of.request.command.lane_key()
}

async fn append(log: &Arc<dyn CommandLog>, commands: &[LoggedCommand]) {
    for command in commands {
        timeout(LONG, log.append(command.clone())).await.expect("appended in time").expect("appended");
    }
}

async fn readers(log: &Arc<dyn CommandLog>) -> Vec<Box<dyn CommandReader>> {
    log.readers().await.expect("readers")
}

async fn listen(log: &Arc<dyn CommandLog>, instance: InstanceId) -> Box<dyn AnswerReader> {
    timeout(LONG, log.answers(instance)).await.expect("heard in time").expect("a reader of answers")
}

pub async fn what_was_appended_is_taken_as_it_was_and_in_order(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let wanted: Vec<Vec<_>> = (0..12).map(|_| commands(user(), 20)).collect();
    for at in 0..20 {
        for of in &wanted {
            append(&log, &of[at..=at]).await;
        }
    }
    let taken = drain(&broker.instance().await, &wanted.concat()).await;
    let expected: BTreeMap<_, _> = wanted.into_iter().map(|of| (key(&of[0]), of)).collect();
    assert_eq!(by_key(&taken), expected);
}

pub async fn what_was_acknowledged_does_not_come_again(broker: Box<dyn LogBroker>) {
    let users: Vec<_> = (0..12).map(|_| user()).collect();
    let of_all = |at| users.iter().map(|of| command(*of, at)).collect::<Vec<_>>();
    let log = broker.instance().await;
    append(&log, &of_all(0)).await;
    let earlier = drain(&log, &of_all(0)).await;
    append(&log, &of_all(1)).await;
    let later = drain(&broker.instance().await, &of_all(1)).await;
    assert!(ids(&later).is_disjoint(&ids(&earlier)), "the later ones alone");
}

pub async fn what_was_not_acknowledged_comes_again(broker: Box<dyn LogBroker>) {
    let wanted: Vec<_> = (0..12).map(|_| commands(user(), 3)).collect();
    let log = broker.instance().await;
    append(&log, &wanted.concat()).await;
    let taking = Taking::start(readers(&log).await, TAKEN_MAX, false);
    taking.until_taken(&wanted.concat()).await;
    drop(taking.stop().await);
    let taken = drain(&broker.instance().await, &wanted.concat()).await;
    let expected: BTreeMap<_, _> = wanted.into_iter().map(|of| (key(&of[0]), of)).collect();
    assert_eq!(by_key(&taken), expected);
}

pub async fn acknowledging_covers_what_was_taken_and_nothing_else(broker: Box<dyn LogBroker>) {
    let wanted = commands(user(), 30);
    let log = broker.instance().await;
    append(&log, &wanted).await;
    let mut readers = readers(&log).await;
    for reader in &mut readers {
        timeout(LONG, reader.acknowledge(usize::MAX)).await.expect("in time").expect("nothing to acknowledge is no error");
    }
    let (at, first) = take_first(&mut readers, 7).await;
    timeout(LONG, readers[at].acknowledge(usize::MAX)).await.expect("in time").expect("acknowledged");
    let (_, second) = take_first(&mut readers, 7).await;
    assert_eq!([first.clone(), second.clone()].concat(), wanted[..first.len() + second.len()]);
    drop(readers);
    let taken = drain(&broker.instance().await, &wanted[first.len()..]).await;
    assert_eq!(firsts(&taken), wanted[first.len()..]);
}

pub async fn acknowledging_begins_with_what_was_taken_first(broker: Box<dyn LogBroker>) {
    let wanted = commands(user(), 30);
    let log = broker.instance().await;
    append(&log, &wanted).await;
    let mut readers = readers(&log).await;
    let (at, mut taken) = take_first(&mut readers, 10).await;
    while taken.len() < 25 {
        taken.extend(timeout(LONG, readers[at].take(25 - taken.len())).await.expect("more arrive"));
    }
    assert_eq!(taken, wanted[..25]);
    // The rest stays taken, and is neither decided nor forgotten.
    for decided in [6, 4] {
        timeout(LONG, readers[at].acknowledge(decided)).await.expect("in time").expect("acknowledged");
    }
    drop(readers);
    let again = drain(&broker.instance().await, &wanted[10..]).await;
    assert_eq!(firsts(&again), wanted[10..]);
}

pub async fn no_more_is_taken_than_asked_for(broker: Box<dyn LogBroker>) {
    let wanted = commands(user(), 50);
    let log = broker.instance().await;
    append(&log, &wanted).await;
    let (mut readers, mut all) = (readers(&log).await, Vec::new());
    for max in [1, 4, 2].into_iter().cycle() {
        let (at, batch) = take_first(&mut readers, max).await;
        assert!((1..=max).contains(&batch.len()), "{} of {max} were taken", batch.len());
        timeout(LONG, readers[at].acknowledge(usize::MAX)).await.expect("in time").expect("acknowledged");
        all.extend(batch);
        if ids(&all).len() == wanted.len() {
            break;
        }
    }
    assert_eq!(firsts(&all), wanted);
}

/// However a log puts together what many callers append.
pub async fn what_was_appended_at_once_may_be_taken_in_parts(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let wanted = commands(user(), 300);
    let mut callers = JoinSet::new();
    for command in wanted.clone() {
        let log = log.clone();
        callers.spawn(async move { append(&log, &[command]).await });
    }
    timeout(LONG, callers.join_all()).await.expect("all were appended");
    let (mut own, mut taken) = (readers(&log).await, Vec::new());
    for max in [1, 4, 2] {
        let (at, batch) = take_first(&mut own, max).await;
        assert!((1..=max).contains(&batch.len()), "{} of {max} were taken", batch.len());
        timeout(LONG, own[at].acknowledge(usize::MAX)).await.expect("in time").expect("acknowledged");
        taken.extend(batch);
    }
    assert_eq!(firsts(&taken), taken, "nothing twice while nobody else reads");
    drop(own);
    let taking = Taking::start(readers(&broker.instance().await).await, 7, true);
    let left: Vec<_> = wanted.iter().filter(|command| !taken.contains(command)).cloned().collect();
    taken.extend(taking.until_taken(&left).await);
    taking.stop().await;
    assert_eq!(firsts(&taken).len(), wanted.len(), "whatever was not acknowledged comes to the next");
    assert_eq!(ids(&taken), ids(&wanted));
}

pub async fn whoever_stops_taking_misses_nothing(broker: Box<dyn LogBroker>) {
    let wanted = commands(user(), 200);
    let log = broker.instance().await;
    let appended = {
        let (log, wanted) = (log.clone(), wanted.clone());
        tokio::spawn(async move { append(&log, &wanted).await })
    };
    let (mut taken, mut readers) = (Vec::new(), readers(&log).await);
    let all_taken = async {
        while ids(&taken).len() < wanted.len() {
            for (at, reader) in readers.iter_mut().enumerate() {
                // Nothing gives it one poll; more lets it wait in the middle of whatever it does.
                let patience = Duration::from_micros(at as u64 * 100 + taken.len() as u64 % 7 * 300);
                if let Ok(batch) = timeout(patience, reader.take(5)).await {
                    taken.extend(batch);
                    if let Err(error) = reader.acknowledge(usize::MAX).await {
                        println!("not acknowledged: {error}");
                    }
                }
            }
        }
    };
    let in_time = timeout(LONG, all_taken).await;
    assert!(in_time.is_ok(), "only {} were taken", taken.len());
    appended.await.expect("all were appended");
    assert_eq!(firsts(&taken), wanted);
}

pub async fn two_instances_share_the_shards_and_lose_nothing(broker: Box<dyn LogBroker>) {
    let (one, other) = (broker.instance().await, broker.instance().await);
    let users: Vec<_> = (0..12).map(|_| user()).collect();
    let part = |from: usize| (from..from + 20).flat_map(|at| users.iter().map(move |of| command(*of, at))).collect::<Vec<_>>();
    let first = Taking::start(readers(&one).await, 10, true);
    let parts = [part(0), part(20), part(40)];
    append(&one, &parts[0]).await;
    first.until(|taken| !taken.all.is_empty()).await;
    // The second comes while the first is at work, and then the first goes.
    let second = first.beside(readers(&other).await, 10, true);
    append(&other, &parts[1]).await;
    second.until_taken(&parts[..2].concat()).await;
    drop(first.stop().await);
    append(&one, &parts[2]).await;
    let taken = second.until_taken(&parts.concat()).await;
    for (key, commands) in by_key(&taken) {
        let amounts: Vec<_> = commands.iter().map(amount).collect();
        assert_eq!(amounts, (1..=60).collect::<Vec<_>>(), "{key}");
    }
    second.stop().await;
}

fn amount(of: &LoggedCommand) -> i64 {
    match &of.request.command {
        boxoffice_domain::Command::ChargeWallet { amount, .. } => *amount,
        other => panic!("{other:?} was never appended"),
    }
}

pub async fn appends_of_many_callers_at_once_are_all_there(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let of = user();
    let mut callers = JoinSet::new();
    for caller in 0..50 {
        let log = log.clone();
        callers.spawn(async move {
            // All contend for one shard; the key says whose command it is.
            let own: Vec<_> = (0..20).map(|at| command(of, caller * 1_000 + at)).collect();
            append(&log, &own).await;
            own
        });
    }
    let wanted = timeout(LONG, callers.join_all()).await.expect("all were appended");
    let taken = drain(&log, &wanted.concat()).await;
    let mut by_caller: BTreeMap<i64, Vec<LoggedCommand>> = BTreeMap::new();
    for command in by_key(&taken).into_values().flatten() {
        by_caller.entry((amount(&command) - 1) / 1_000).or_default().push(command);
    }
    assert_eq!(by_caller.len(), wanted.len());
    for own in wanted {
        assert_eq!(by_caller[&((amount(&own[0]) - 1) / 1_000)], own, "each caller's stay in order");
    }
}

pub async fn dead_letters_are_kept_with_their_reason_and_block_nobody(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let wanted = commands(user(), 3);
    append(&log, &wanted).await;
    let mut readers = readers(&log).await;
    let mut taken = Vec::new();
    while ids(&taken).len() < wanted.len() {
        let (at, batch) = take_first(&mut readers, TAKEN_MAX).await;
        if let Some(command) = batch.iter().find(|command| **command == wanted[1]) {
            let letter = readers[at].dead_letter(command.clone(), "no such column".to_owned());
            timeout(LONG, letter).await.expect("in time").expect("kept");
        }
        timeout(LONG, readers[at].acknowledge(usize::MAX)).await.expect("in time").expect("acknowledged");
        taken.extend(batch);
    }
    drop(readers);
    let last = command(owner(&wanted), wanted.len());
    append(&log, std::slice::from_ref(&last)).await;
    assert_eq!(firsts(&drain(&broker.instance().await, std::slice::from_ref(&last)).await), [last], "none of them came again");
    let letters = timeout(LONG, broker.dead_letters(1)).await.expect("in time");
    let [(bytes, reason)] = &letters[..] else { panic!("there are {}", letters.len()) };
    assert_eq!(reason, "no such column");
    let (text, id) = (String::from_utf8_lossy(bytes), wanted[1].request.command_id.to_string());
    assert!(text.contains(&id), "{id} is not in {text}");
}

fn owner(of: &[LoggedCommand]) -> UserId {
    of[0].request.actor.user().expect("a user")
}

pub async fn unreadable_messages_are_dead_letters_and_block_nobody(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let wanted = commands(user(), 2);
    let newer = br#"{"v":4000000000,"request":"of another shape"}"#.to_vec();
    append(&log, &wanted[..1]).await;
    for bytes in [Vec::new(), vec![0, 159, 146, 150], newer.clone()] {
        broker.put(key(&wanted[0]), bytes).await;
    }
    append(&log, &wanted[1..]).await;
    assert_eq!(firsts(&drain(&broker.instance().await, &wanted).await), wanted);
    let mut letters = timeout(LONG, broker.dead_letters(3)).await.expect("in time");
    letters.sort();
    assert_eq!(letters.iter().map(|(bytes, _)| bytes.clone()).collect::<Vec<_>>(), [Vec::new(), vec![0, 159, 146, 150], newer]);
    assert!(letters.iter().all(|(_, reason)| !reason.is_empty()), "{letters:?}");
    assert!(letters[2].1.contains("4000000000"), "{letters:?}");
    let last = command(owner(&wanted), wanted.len());
    append(&log, std::slice::from_ref(&last)).await;
    assert_eq!(firsts(&drain(&broker.instance().await, std::slice::from_ref(&last)).await), [last]);
    assert_eq!(timeout(LONG, broker.dead_letters(3)).await.expect("in time").len(), 3, "each is a dead letter once");
}

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

async fn hear(reader: &mut Box<dyn AnswerReader>, count: usize) -> Vec<Answer> {
    let mut heard = Vec::new();
    while heard.len() < count {
        match timeout(LONG, reader.heard()).await {
            Ok(answers) => heard.extend(answers),
            Err(_) => panic!("only {} of {count} were heard", heard.len()),
        }
    }
    sorted(heard)
}

pub async fn answers_reach_their_instance_alone(broker: Box<dyn LogBroker>) {
    let (one, other) = (broker.instance().await, broker.instance().await);
    let (first, second) = (instance(), instance());
    let (mut at_first, mut at_second) = (listen(&one, first).await, listen(&other, second).await);
    // So many others that some share whatever the broker keeps answers in.
    for at in 0..30 {
        one.answer(instance(), vec![answer(at)]).await.expect("told");
    }
    let (to_first, to_second): (Vec<_>, Vec<_>) = ((1..1_200).map(answer).collect(), (1..400).map(answer).collect());
    for (log, instance, answers) in [(&other, first, &to_first), (&one, second, &to_second)] {
        for part in answers.chunks(350) {
            timeout(LONG, log.answer(instance, part.to_vec())).await.expect("in time").expect("told");
        }
    }
    assert_eq!(hear(&mut at_first, to_first.len()).await, sorted(to_first));
    assert_eq!(hear(&mut at_second, to_second.len()).await, sorted(to_second));
}

pub async fn whoever_stops_listening_misses_no_answer(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let own = instance();
    let mut reader = listen(&log, own).await;
    for at in 0..50 {
        let told = vec![answer(at)];
        assert!(timeout(Duration::from_micros(at as u64 * 50), reader.heard()).await.is_err(), "nothing to hear");
        timeout(LONG, log.answer(own, told.clone())).await.expect("in time").expect("told");
        assert_eq!(hear(&mut reader, 1).await, told);
    }
}

pub async fn answers_to_nobody_harm_nobody(broker: Box<dyn LogBroker>) {
    let log = broker.instance().await;
    let (own, gone) = (instance(), instance());
    let mut reader = listen(&log, own).await;
    drop(listen(&log, gone).await);
    for to in [gone, instance()] {
        timeout(LONG, log.answer(to, (0..10).map(answer).collect())).await.expect("in time").expect("losing them is no error");
    }
    timeout(LONG, log.answer(own, Vec::new())).await.expect("in time").expect("nothing to tell is no error");
    let told = vec![answer(1)];
    timeout(LONG, log.answer(own, told.clone())).await.expect("in time").expect("told");
    assert_eq!(hear(&mut reader, 1).await, told);
}

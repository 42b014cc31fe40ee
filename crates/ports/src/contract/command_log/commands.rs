//! Commands: in order, at least once, until they are acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::build::user;
use super::case::{LONG, LogBroker, TAKEN_MAX, append, command, commands, key, readers};
use super::taking::{Taking, by_key, drain, firsts, ids, take_first};
use crate::LoggedCommand;

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
    assert_eq!(firsts(&taken), taken, "nothing twice while no other reader reads");
    drop(own);
    let taking = Taking::start(readers(&broker.instance().await).await, 7, true);
    let left: Vec<_> = wanted.iter().filter(|command| !taken.contains(command)).cloned().collect();
    taken.extend(taking.until_taken(&left).await);
    taking.stop().await;
    assert_eq!(firsts(&taken).len(), wanted.len(), "what was not acknowledged comes to the next reader");
    assert_eq!(ids(&taken), ids(&wanted));
}

pub async fn a_reader_that_stops_taking_misses_nothing(broker: Box<dyn LogBroker>) {
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
                // Nothing gives it one poll; more lets it wait in the middle of its work.
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
            // All contend for one shard; the key identifies the user.
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

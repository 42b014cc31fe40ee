//! Commands that cannot be decided, or read.

use boxoffice_domain::UserId;
use tokio::time::timeout;

use super::super::build::user;
use super::case::{LONG, LogBroker, TAKEN_MAX, append, command, commands, key, readers};
use super::taking::{drain, firsts, ids, take_first};
use crate::LoggedCommand;

pub async fn dead_letters_are_kept_with_their_reason_and_block_no_other_command(broker: Box<dyn LogBroker>) {
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

pub async fn unreadable_messages_are_dead_letters_and_block_no_command(broker: Box<dyn LogBroker>) {
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

//! Messages of a log on their way to its reader: each command by itself, and texts that cannot be read to the dead letters.
//!
//! A message holds one command or several ([`super::sequence`]), and commands are handed out in order. A text that cannot
//! be read becomes a dead letter, as it came. Commands before it do not wait for that; nothing behind it is handed out
//! until the letter is stored. While that fails it is retried, with pauses. A crash in between leaves the letter there twice.
//!
//! A command that was handed out is remembered until it is acknowledged. So one that cannot be decided becomes a dead letter
//! as it came too, with the fields that only a newer version knows.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::LoggedCommand;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::sequence::Texts;
use super::{command, parse_command};
use crate::pause::jittered;

/// The longest pause before a dead letter is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Where dead letters are kept. `P` is the place of the message in the log.
#[async_trait]
pub(crate) trait DeadLetters<P>: Send + Sync + 'static {
    type Failure: Display + Send;
    /// Durable where it is `Ok`. Bounded in time.
    async fn bury(&self, place: &P, text: &[u8], reason: &str) -> Result<(), Self::Failure>;
}

/// See the module's opening.
pub(crate) struct Intake<P> {
    /// Those of which something is left to hand out.
    messages: VecDeque<(P, Texts)>,
    /// The text in front, which cannot be read, and why. Nothing is handed out meanwhile.
    unreadable: Option<(Vec<u8>, String)>,
    /// In a task, so that a reader that stops waiting does not send the letter twice.
    burying: JoinSet<()>,
    /// For each command that was handed out and not acknowledged: its message, from there on.
    given: VecDeque<Texts>,
}

impl<P> Default for Intake<P> {
    fn default() -> Self {
        Self { messages: VecDeque::new(), unreadable: None, burying: JoinSet::new(), given: VecDeque::new() }
    }
}

impl<P: Clone + Send + Sync + 'static> Intake<P> {
    pub(crate) fn push(&mut self, place: P, bytes: impl Into<Arc<[u8]>>) {
        self.messages.push_back((place, Texts::new(bytes)));
    }

    /// How many messages are here of which something is left.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// The next command; with the place of its message if nothing else is left of it. `None` when nothing is here, or an
    /// unreadable text comes first ([`Intake::settle`]).
    pub(crate) fn next(&mut self) -> Option<(LoggedCommand, Option<P>)> {
        if self.unreadable.is_some() {
            return None;
        }
        let (_, texts) = self.messages.front_mut()?;
        let rest = texts.clone();
        let text = texts.next()?;
        match parse_command(text) {
            Ok(command) => {
                self.given.push_back(rest);
                Some((command, self.ended()))
            }
            Err(error) => {
                self.unreadable = Some((text.to_vec(), error.to_string()));
                None
            }
        }
    }

    /// If the text in front is unreadable, returns once it is with the dead letters. Returns the place of its message if
    /// nothing else is left of it. Cancel-safe.
    pub(crate) async fn settle<D: DeadLetters<P>>(&mut self, dead: &Arc<D>) -> Option<P> {
        loop {
            let ((text, reason), (place, _)) = self.unreadable.as_ref().zip(self.messages.front())?;
            if self.burying.is_empty() {
                self.burying.spawn(bury(dead.clone(), place.clone(), text.clone(), reason.clone()));
            }
            if let Some(Ok(())) = self.burying.join_next().await {
                self.unreadable = None;
                return self.ended();
            }
        }
    }

    /// The first so many commands are decided.
    pub(crate) fn acknowledge(&mut self, commands: usize) {
        self.given.drain(..commands.min(self.given.len()));
    }

    /// A command as it came; as this version writes it if it is not remembered.
    pub(crate) fn text_of(&self, wanted: &LoggedCommand) -> Result<Vec<u8>, serde_json::Error> {
        let is_wanted = |text: &&[u8]| parse_command(text).is_ok_and(|found| found == *wanted);
        let found = self.given.iter().find_map(|rest| rest.clone().next().filter(is_wanted).map(<[u8]>::to_vec));
        found.map_or_else(|| command(wanted), Ok)
    }

    fn ended(&mut self) -> Option<P> {
        self.messages.pop_front_if(|(_, texts)| texts.is_over()).map(|(place, _)| place)
    }
}

/// Retries until the letter is stored.
async fn bury<P: Send + Sync + 'static, D: DeadLetters<P>>(dead: Arc<D>, place: P, text: Vec<u8>, reason: String) {
    while let Err(error) = dead.bury(&place, &text, &reason).await {
        tracing::warn!(%error, "an unreadable command could not be stored with the dead letters; trying again");
        sleep(jittered(RETRY_PAUSE)).await;
    }
    tracing::warn!(reason, "an unreadable command is with the dead letters");
}

#[cfg(test)]
mod tests {
    use super::super::sequence::sequence;
    use super::*;
    use boxoffice_domain::{Actor, Command, CommandId, FreshIds, Request, UserId};
    use boxoffice_ports::InstanceId;
    use chrono::DateTime;
    use std::sync::Mutex;
    use uuid::Uuid;

    /// Fails the first time.
    #[derive(Default)]
    struct Letters(Mutex<Vec<(char, Vec<u8>)>>);

    #[async_trait]
    impl DeadLetters<char> for Letters {
        type Failure = &'static str;
        async fn bury(&self, place: &char, text: &[u8], _: &str) -> Result<(), Self::Failure> {
            let mut tries = self.0.lock().unwrap();
            tries.push((*place, text.to_vec()));
            if tries.len() == 1 { Err("away") } else { Ok(()) }
        }
    }

    fn logged(amount: i64) -> LoggedCommand {
        let id = Uuid::from_u128;
        let user = UserId(id(1));
        let command = Command::UseWallet { user, amount, memo: None };
        let fresh = FreshIds { subject: id(2), entry: id(3), points: [id(4), id(5)] };
        let request = Request { command_id: CommandId(id(6)), actor: Actor::User(user), fingerprint: None, fresh, command };
        LoggedCommand { request, reply_to: InstanceId(id(7)), accepted_at: DateTime::UNIX_EPOCH }
    }

    fn text(amount: i64) -> Vec<u8> {
        command(&logged(amount)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_text_is_buried_before_anything_behind_it_is_handed_out() {
        let (mut intake, letters) = (Intake::default(), Arc::new(Letters::default()));
        intake.push('a', sequence(&[text(1), b"not".to_vec(), text(2), b"nor".to_vec()]));
        intake.push('b', text(3));
        assert!(intake.settle(&letters).await.is_none(), "nothing is unreadable yet");
        assert_eq!(intake.next(), Some((logged(1), None)));
        assert_eq!((intake.next(), intake.next()), (None, None));
        assert_eq!(intake.settle(&letters).await, None, "something is left of its message");
        assert_eq!((intake.next(), intake.next()), (Some((logged(2), None)), None));
        // Dropped while it waits, and called again: the letter is sent once.
        assert!(futures_util::poll!(Box::pin(intake.settle(&letters))).is_pending());
        assert_eq!(intake.settle(&letters).await, Some('a'));
        assert_eq!((intake.next(), intake.messages()), (Some((logged(3), Some('b'))), 0));
        let tries: Vec<_> =
            letters.0.lock().unwrap().iter().map(|(place, text)| (*place, String::from_utf8(text.clone()).unwrap())).collect();
        assert_eq!(tries, [('a', "not".to_owned()), ('a', "not".to_owned()), ('a', "nor".to_owned())], "tried again once");
    }

    #[test]
    fn a_command_is_remembered_as_it_came_until_it_is_acknowledged() {
        let mut intake = Intake::default();
        let newer = String::from_utf8(text(1)).unwrap().replacen('{', r#"{"added_since":1,"#, 1).into_bytes();
        intake.push('a', sequence(&[newer.clone(), text(2)]));
        while intake.next().is_some() {}
        assert_eq!(intake.text_of(&logged(1)).unwrap(), newer);
        intake.acknowledge(1);
        assert_eq!(intake.text_of(&logged(1)).unwrap(), text(1));
        assert_eq!(intake.text_of(&logged(2)).unwrap(), text(2));
    }
}

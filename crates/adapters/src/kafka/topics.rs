//! Topics: created when missing, checked otherwise.
//!
//! Brokers delete whole segments, so a segment of a topic with a retention is a part of it long. Messages older than the
//! retention and one segment are gone, at any rate of messages.
//!
//! Instances that start together may create a topic at once: the second finds it. A topic that exists is used as it is,
//! with its own retention and with more partitions than are configured, but not with fewer.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, sleep};

use super::connect::{ANSWER_MAX, ClientLog, blocking, client, close};
use super::failure::Failure;

/// How often a topic that was created is asked for, until all brokers know it.
const POLL: Duration = Duration::from_millis(20);
/// How many segments a retention has.
const SEGMENTS: u32 = 4;
/// As many copies as the brokers make of any topic.
const COPIES: i32 = -1;

pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: u32,
    /// `None`: as long as the brokers keep any topic.
    pub(super) retention: Option<Duration>,
}

/// The topic of the answers to the commands of another.
pub(super) fn answers_of(commands: &str) -> String {
    format!("{commands}.answers")
}

pub(super) fn dead_of(commands: &str) -> String {
    format!("{commands}.dead")
}

/// How many partitions each of them has, in this order, once all of them have leaders. One round trip if they exist,
/// about three if not.
pub(super) async fn ensure(brokers: &str, wanted: &[Wanted<'_>]) -> Result<Vec<usize>, Failure> {
    let admin: AdminClient<_> = client(brokers).create_with_context(ClientLog).map_err(Failure::Settings)?;
    let (mut admin, mut found) = partitions(admin).await?;
    let missing: Vec<_> = wanted.iter().filter(|topic| !found.contains_key(topic.name)).collect();
    if !missing.is_empty() {
        create(&admin, &missing).await?;
        let deadline = Instant::now() + ANSWER_MAX;
        while let Some(late) = missing.iter().find(|topic| found.get(topic.name).is_none_or(|partitions| partitions.leaderless)) {
            if Instant::now() > deadline {
                return Err(Failure::Leaderless { topic: late.name.to_owned() });
            }
            sleep(POLL).await;
            (admin, found) = partitions(admin).await?;
        }
    }
    close(admin);
    let checked = wanted.iter().map(|topic| {
        let has = found.get(topic.name).map_or(0, |partitions| partitions.count);
        let enough = u32::try_from(has).is_ok_and(|has| has >= topic.partitions);
        if enough { Ok(has) } else { Err(Failure::Partitions { topic: topic.name.to_owned(), has, wanted: topic.partitions }) }
    });
    checked.collect()
}

struct Partitions {
    count: usize,
    leaderless: bool,
}

/// Of every topic. Asking for one by its name would create it, with other settings, where brokers are set to do so.
async fn partitions(admin: AdminClient<ClientLog>) -> Result<(AdminClient<ClientLog>, HashMap<String, Partitions>), Failure> {
    let asked = blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, ANSWER_MAX).map_err(Failure::Unreachable)?;
        let of = |topic: &rdkafka::metadata::MetadataTopic| {
            let leaderless = topic.partitions().iter().any(|partition| partition.leader() < 0);
            (topic.name().to_owned(), Partitions { count: topic.partitions().len(), leaderless })
        };
        let found = metadata.topics().iter().filter(|topic| topic.error().is_none()).map(of).collect();
        Ok((admin, found))
    });
    asked.await?
}

async fn create(admin: &AdminClient<ClientLog>, missing: &[&Wanted<'_>]) -> Result<(), Failure> {
    let milliseconds = |time: Duration| time.as_millis().to_string();
    let settings = |time| [("retention.ms", milliseconds(time)), ("segment.ms", milliseconds(time / SEGMENTS))];
    let kept: Vec<_> = missing.iter().map(|topic| topic.retention.map(settings)).collect();
    let new = missing.iter().zip(&kept).map(|(topic, kept)| {
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        let new = NewTopic::new(topic.name, partitions, TopicReplication::Fixed(COPIES));
        kept.iter().flatten().fold(new, |new, (name, value)| new.set(name, value))
    });
    let new: Vec<_> = new.collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX));
    for created in admin.create_topics(&new, &options).await.map_err(Failure::Unreachable)? {
        match created {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, reason)) => return Err(Failure::Topic { topic, reason }),
        }
    }
    Ok(())
}

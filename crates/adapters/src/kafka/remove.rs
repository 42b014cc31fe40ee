//! Deleting a log that is no longer needed: its topics and its group, with all that is in them.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, sleep};

use super::connect::{ANSWER_MAX, ClientLog, client, close};
use super::failure::Failure;
use super::topics::{answers_of, dead_of};

/// How long the last members may take to leave the group. A group that is not empty by then stays, without positions,
/// until the brokers forget it.
const LEAVE_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// Deletes the topics of a log and its group; any that are missing are no error. The log must be closed.
pub async fn remove(brokers: &str, commands_topic: &str, group: &str) -> Result<(), Failure> {
    let admin: AdminClient<_> = client(brokers).create_with_context(ClientLog).map_err(Failure::Settings)?;
    let removed = remove_by(&admin, commands_topic, group).await;
    close(admin);
    removed
}

async fn remove_by(admin: &AdminClient<ClientLog>, commands_topic: &str, group: &str) -> Result<(), Failure> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX));
    let deadline = Instant::now() + LEAVE_MAX;
    loop {
        let removed = admin.delete_groups(&[group], &options).await.map_err(Failure::Unreachable)?;
        let stays = removed.into_iter().any(|removed| matches!(removed, Err((_, RDKafkaErrorCode::NonEmptyGroup))));
        if !stays || Instant::now() > deadline {
            break;
        }
        sleep(POLL).await;
    }
    let topics = [commands_topic.to_owned(), answers_of(commands_topic), dead_of(commands_topic)];
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for removed in admin.delete_topics(&names, &options).await.map_err(Failure::Unreachable)? {
        match removed {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
            Err((topic, reason)) => return Err(Failure::Topic { topic, reason }),
        }
    }
    Ok(())
}

/// The version of the client: the brokers do not report theirs.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

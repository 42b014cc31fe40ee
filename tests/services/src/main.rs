//! Runs a command with services of its own: `boxoffice-services COMMAND ARGUMENT…`.
//!
//! The command gets their addresses in its environment, as the server's own settings: a durable PostgreSQL, a Redis node,
//! five more for Redlock, a Kafka broker and RabbitMQ. They end with it.

use anyhow::{Context, Result, bail};
use boxoffice_services::{Kafka, Postgres, RabbitMq, Redis};
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::panic::resume_unwind;
use std::process::{Command, ExitCode};
use std::thread::{ScopedJoinHandle, scope};

/// Independent nodes for Redlock.
const NODES: usize = 5;

fn main() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else { bail!("the command to run is missing: boxoffice-services COMMAND ARGUMENT…") };
    let (postgres, redis, nodes, kafka, rabbitmq) = scope(|scope| {
        let postgres = scope.spawn(Postgres::start_durable);
        let redis = scope.spawn(Redis::start);
        let nodes: Vec<_> = (0..NODES).map(|_| scope.spawn(Redis::start)).collect();
        let (kafka, rabbitmq) = (scope.spawn(Kafka::start), scope.spawn(RabbitMq::start));
        let nodes = nodes.into_iter().map(started).collect::<Result<Vec<_>>>()?;
        anyhow::Ok((started(postgres)?, started(redis)?, nodes, started(kafka)?, started(rabbitmq)?))
    })?;
    let urls: Vec<_> = nodes.iter().map(|node| format!("{:?}", node.url())).collect();
    let mut command = Command::new(&program);
    command.args(arguments);
    command.env("BOXOFFICE__STORE__POSTGRES_URL", postgres.database()?);
    command.env("BOXOFFICE__REDIS__URLS", format!("[{:?}]", redis.url()));
    command.env("BOXOFFICE__REDIS__REDLOCK_NODES", format!("[{}]", urls.join(", ")));
    command.env("BOXOFFICE__KAFKA__BROKERS", kafka.brokers());
    command.env("BOXOFFICE__RABBITMQ__URL", rabbitmq.url());
    let status = command.status().with_context(|| program.to_string_lossy().into_owned())?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn started<S>(server: ScopedJoinHandle<'_, Result<S>>) -> Result<S> {
    server.join().unwrap_or_else(|panic| resume_unwind(panic))
}

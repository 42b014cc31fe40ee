//! Events on standard output, one a line: for a log shipper, or for reading.
//!
//! The lines of one step are written together and flushed before they count as published; no other step's lines come
//! between them. A closed pipe is an error: the step failed, and lines of it that were written are written again.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use boxoffice_ports::{EventSink, OutboxRow, Source};

use crate::wire;

/// See the module's opening.
pub struct LogSink {
    /// Used on a blocking thread: a slow reader must not stop the runtime.
    writer: Arc<Mutex<dyn Write + Send>>,
}

impl LogSink {
    pub fn stdout() -> Self {
        Self::to(io::stdout())
    }

    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)) }
    }
}

#[async_trait]
impl EventSink for LogSink {
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source> {
        let mut lines = Vec::new();
        for row in &rows {
            // This JSON has no line breaks.
            lines.extend(wire::published(row)?.body);
            lines.push(b'\n');
        }
        let writer = self.writer.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write_all(&lines)?;
            writer.flush()
        });
        Ok(written.await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_domain::Event;
    use chrono::DateTime;
    use serde_json::Value;
    use uuid::Uuid;

    fn rows(ids: std::ops::Range<i64>) -> Vec<OutboxRow> {
        let user = Uuid::from_u128(5).into();
        let event = |id: i64| Event::WalletCharged { user, entry: Uuid::from_u128(id as u128).into(), amount: id, balance: id };
        ids.map(|id| OutboxRow { shard: 3, id, event: event(id), occurred_at: DateTime::UNIX_EPOCH }).collect()
    }

    /// The written text, and its length at the last flush.
    #[derive(Clone, Default)]
    struct Written {
        text: Vec<u8>,
        flushed: usize,
    }

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Written>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A few bytes at a time, as a pipe may.
            let taken = &bytes[..bytes.len().min(7)];
            self.0.lock().unwrap().text.extend(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            let mut written = self.0.lock().unwrap();
            written.flushed = written.text.len();
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_event_is_a_line_and_flushed() {
        let output = Output::default();
        let sink = LogSink::to(output.clone());
        sink.publish(rows(0..3)).await.unwrap();
        sink.publish(Vec::new()).await.unwrap();
        sink.publish(rows(3..5)).await.unwrap();
        let Written { text, flushed } = output.0.lock().unwrap().clone();
        assert_eq!(flushed, text.len());
        let lines: Vec<Value> = text.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
        let ids: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["3-0", "3-1", "3-2", "3-3", "3-4"]);
        assert!(lines.iter().all(|line| line["specversion"] == "1.0" && line["type"] == "wallet.charged"), "{lines:?}");
    }

    #[tokio::test]
    async fn a_closed_pipe_fails_the_step_and_not_the_process() {
        let (reader, writer) = io::pipe().unwrap();
        let sink = LogSink::to(writer);
        drop(reader);
        for _ in 0..2 {
            let error = sink.publish(rows(0..1)).await.unwrap_err();
            assert_eq!(error.downcast_ref::<io::Error>().map(io::Error::kind), Some(io::ErrorKind::BrokenPipe));
        }
    }

    #[tokio::test]
    async fn concurrent_steps_do_not_mix() {
        let output = Output::default();
        let sink = Arc::new(LogSink::to(output.clone()));
        let steps: Vec<_> = (0..8).map(|step| (sink.clone(), rows(step * 10..step * 10 + 10))).collect();
        let steps: Vec<_> = steps.into_iter().map(|(sink, rows)| tokio::spawn(async move { sink.publish(rows).await.unwrap() })).collect();
        for step in steps {
            step.await.unwrap();
        }
        let text = String::from_utf8(output.0.lock().unwrap().text.clone()).unwrap();
        let ids: Vec<i64> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["amount"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), 80);
        assert!(ids.chunks(10).all(|step| step.windows(2).all(|pair| pair[0] + 1 == pair[1])), "{ids:?}");
    }
}

//! Figures for Prometheus: requests at the edge, the engine's counters, connections, and entries of the waiting rooms.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::RoomCounts;
use boxoffice_engine::{Stats, Supervisor};
use boxoffice_ports::Traffic;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::connections::Capacity;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the latency buckets, seconds.
const BUCKETS_S: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    /// As it is registered, so that ids do not multiply the series.
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoomLabels {
    concert: String,
    state: &'static str,
}

/// See the module's opening.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram>,
    room: Family<RoomLabels, Gauge>,
}

impl Metrics {
    pub(crate) fn new(stats: Arc<Stats>, traffic: Arc<Traffic>, tasks: Arc<Supervisor>, capacity: Arc<Capacity>) -> Self {
        let mut registry = Registry::with_prefix("boxoffice");
        let requests = Family::default();
        let latency = Family::new_with_constructor((|| Histogram::new(BUCKETS_S)) as fn() -> Histogram);
        let room = Family::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register("http_request_seconds", "From the first byte read to the answer handed over", latency.clone());
        registry.register("queue_entries", "Entries of the waiting rooms by state", room.clone());
        registry.register_collector(Box::new(EngineFigures(stats, traffic)));
        registry.register_collector(Box::new(TasksFigures(tasks)));
        registry.register_collector(Box::new(OpenConnections(capacity)));
        Self { registry, requests, latency, room }
    }

    pub(crate) fn request(&self, method: &Method, route: &'static str, status: StatusCode, took: Duration) {
        let method = name_of(method);
        self.requests.get_or_create(&RequestLabels { method, route, status: status.as_u16() }).inc();
        self.latency.get_or_create(&RouteLabels { method, route }).observe(took.as_secs_f64());
    }

    pub(crate) fn room(&self, concert: ConcertId, counts: &RoomCounts) {
        let RoomCounts { waiting, active, served, left, expired, .. } = *counts;
        for (state, count) in [("waiting", waiting), ("active", active), ("served", served), ("left", left), ("expired", expired)] {
            let labels = RoomLabels { concert: concert.to_string(), state };
            self.room.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Clients choose the method's name; it must not multiply the series.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[derive(Debug)]
struct EngineFigures(Arc<Stats>, Arc<Traffic>);

impl Collector for EngineFigures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Stats { best_offers, commands, batches, retries, bisections, overloaded, busy, ledger_us, .. } = &*self.0;
        let Stats { swept_holds, relayed_events, promoted, .. } = &*self.0;
        let Stats { held_commands, lock_waits, lock_wait_us, lock_held_us, accepted_commands, dead_commands, .. } = &*self.0;
        let Stats { logged_commands, unsent_events, unsent_age_ms, .. } = &*self.0;
        let Stats { sse_streams, websockets, frames_sent, slow_listeners, .. } = &*self.0;
        for (name, help, figure) in [
            ("commands", "Commands decided, replays and refusals included", commands),
            ("batches", "Batches committed", batches),
            ("batch_retries", "Batches run again", retries),
            ("batch_bisections", "Batches cut in two because the store refused them", bisections),
            ("overloaded_commands", "Commands turned away", overloaded),
            ("busy_commands", "Commands refused because another command held their lock", busy),
            ("held_commands", "Commands that waited by themselves for a row locked by another transaction", held_commands),
            ("lock_waits", "Commands that asked for a lock", lock_waits),
            ("lock_wait_microseconds", "Time from asking for a lock to getting it or giving up", lock_wait_us),
            ("lock_held_microseconds", "Time from getting a lock to having given it back", lock_held_us),
            ("best_offers", "Offers of best seats sent to be decided", best_offers),
            ("ledger_microseconds", "Time spent in ledger calls", ledger_us),
            ("swept_holds", "Holds whose expiry the sweep has written", swept_holds),
            ("relayed_events", "Events taken out of the outbox", relayed_events),
            ("promoted_entries", "Entries of waiting rooms that were promoted", promoted),
            ("frames_sent", "Frames handed to listeners of waiting rooms", frames_sent),
            ("slow_listeners", "Listeners given up because they did not take their frames", slow_listeners),
            ("accepted_commands", "Commands answered 202, whose callers ask again", accepted_commands),
            ("dead_commands", "Commands from a log that lie with the dead letters", dead_commands),
        ] {
            let counter = ConstCounter::new(figure.get());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, figure) in [
            ("logged_commands", "Commands of this instance that stand in a log and have no answer yet", logged_commands),
            ("sse_streams", "Event streams that are open", sse_streams),
            ("websockets", "WebSockets that are open", websockets),
            ("unsent_events", "Events that wait in the outbox, up to 100,000", unsent_events),
            ("unsent_events_age_milliseconds", "How long the oldest of them has waited", unsent_age_ms),
        ] {
            let gauge = ConstGauge::new(i64::try_from(figure.get()).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let traffic = self.1.counts();
        for (name, help, figure) in [
            ("store_statements", "Statements sent to the store's database, BEGIN and COMMIT included", traffic.statements),
            ("store_commits", "Transactions that wrote and were committed", traffic.commits),
            ("redis_commands", "Commands sent to Redis, scripts and publications counted as one each", traffic.redis_commands),
            ("broker_messages", "Messages handed to a broker, and taken from it", traffic.broker_messages),
        ] {
            ConstCounter::new(figure).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct TasksFigures(Arc<Supervisor>);

impl Collector for TasksFigures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let figures = self.0.figures();
        let mut up =
            encoder.encode_descriptor("task_up", "Whether a task of the instance runs and does not fail", None, MetricType::Gauge)?;
        for task in &figures {
            ConstGauge::new(i64::from(task.up)).encode(up.encode_family(&[("task", task.name.as_str())])?)?;
        }
        let help = "How often a task of the instance was started again after it had failed";
        let mut restarts = encoder.encode_descriptor("task_restarts", help, None, MetricType::Counter)?;
        for task in &figures {
            ConstCounter::new(task.restarts).encode(restarts.encode_family(&[("task", task.name.as_str())])?)?;
        }
        Ok(())
    }
}

struct OpenConnections(Arc<Capacity>);

impl fmt::Debug for OpenConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenConnections").field(&self.0.open()).finish()
    }
}

impl Collector for OpenConnections {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, help, count) in
            [("connections", "Connections that are open", self.0.open()), ("connections_max", "How many there may be", self.0.max())]
        {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_ports::{Tasks, WhenFailing};

    #[tokio::test]
    async fn figures_show_requests_and_the_engine() {
        let stats = Arc::<Stats>::default();
        stats.commands.add(7);
        let traffic = Arc::<Traffic>::default();
        traffic.redis_commands(5);
        traffic.broker_messages(6);
        stats.lock_wait_us.add(8);
        stats.unsent_events.set(9);
        stats.unsent_events.set(2);
        let tasks = Supervisor::new();
        let kept = (&*tasks as &dyn Tasks).keep("relay.3", WhenFailing::NotReady, || async { Ok(()) });
        let capacity = Capacity::new(&crate::config::Settings::defaults().unwrap().http);
        let metrics = Metrics::new(stats, traffic, tasks, capacity);
        metrics.request(&Method::POST, "/a/{id}", StatusCode::CREATED, Duration::from_millis(1));
        metrics.room(ConcertId(uuid::Uuid::nil()), &RoomCounts { waiting: 3, ..RoomCounts::default() });
        let text = metrics.encode().unwrap();
        drop(kept);
        for line in [
            "boxoffice_http_requests_total{method=\"POST\",route=\"/a/{id}\",status=\"201\"} 1",
            "boxoffice_http_request_seconds_count{method=\"POST\",route=\"/a/{id}\"} 1",
            "boxoffice_connections 0",
            "boxoffice_commands_total 7",
            "boxoffice_redis_commands_total 5",
            "boxoffice_broker_messages_total 6",
            "boxoffice_unsent_events 2",
            "boxoffice_task_up{task=\"relay.3\"} 1",
            "boxoffice_task_restarts_total{task=\"relay.3\"} 0",
            "boxoffice_lock_wait_microseconds_total 8",
            "boxoffice_queue_entries{concert=\"00000000-0000-0000-0000-000000000000\",state=\"waiting\"} 3",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}

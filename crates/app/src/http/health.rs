//! Liveness, and readiness: the store, the waiting room, the servers of the locks, and the tasks of the instance, each of
//! which is named while it fails again and again.
//!
//! All checks run at once and each is given [`CHECK_MAX`], so a dependency that is down is named within it.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use boxoffice_engine::FailingTask;
use boxoffice_ports::WhenFailing;
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::probe::{Health, Probe};
use super::problem::Problem;
use super::state::App;

/// How long a readiness check waits for an answer.
const CHECK_MAX: Duration = Duration::from_secs(2);

#[derive(Serialize, ToSchema)]
pub(crate) struct Live {
    #[schema(example = "live")]
    status: &'static str,
}

/// 200 while the process runs.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200, description = "It runs", body = Live)))]
pub(crate) async fn live() -> Result<HttpResponse, Problem> {
    answer::ok(&Live { status: "live" })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    #[schema(example = "postgres")]
    store: &'static str,
    /// As it is configured: `store` is wherever the store keeps its rows.
    #[schema(example = "redis")]
    queue: &'static str,
    strategy: Strategies,
    checks: Vec<Check>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Strategies {
    #[schema(example = "combining")]
    seat: &'static str,
    #[schema(example = "pubsub")]
    wallet: &'static str,
    #[schema(example = "pessimistic")]
    payment: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Check {
    /// `store`, `queue`; `redis` and `redlock` where a strategy keeps its locks there; `task.` and the name of each task
    /// that fails again and again.
    #[schema(example = "store", value_type = String)]
    name: Cow<'static, str>,
    ok: bool,
    /// What is wrong, or needs to be seen to; null when nothing is.
    detail: Option<String>,
}

/// Whether it can serve, and what is down when it cannot.
#[utoipa::path(get, path = "/health/ready", tag = "health", responses(
    (status = 200, description = "It can serve", body = Ready),
    (status = 503, description = "It cannot: see `checks`", body = Ready)))]
pub(crate) async fn ready(app: Data<App>) -> Result<HttpResponse, Problem> {
    // The store must take writes: reads also work on a standby.
    let store =
        check("store", async { app.stores.upkeep.check().await.map_or_else(|error| Health::Failed(error.into()), |()| Health::Good) });
    let queue = check("queue", async { app.room.ping().await.map_or_else(|error| Health::Failed(error.into()), |()| Health::Good) });
    let others = join_all(app.probes.iter().map(|probe: &Arc<dyn Probe>| check(probe.name(), probe.check())));
    let (store, queue, others) = tokio::join!(store, queue, others);
    let checks: Vec<_> = [store, queue].into_iter().chain(others).chain(app.tasks.failing().into_iter().map(failing)).collect();
    let status = if checks.iter().all(|check| check.ok) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let (settings, strategy) = (&app.settings, &app.settings.strategy);
    let view = Ready {
        store: settings.store.backend.name(),
        queue: settings.queue.backend.name(),
        strategy: Strategies { seat: strategy.seat.name(), wallet: strategy.wallet.name(), payment: strategy.payment.name() },
        checks,
    };
    answer::json(status, &view)
}

async fn check(name: &'static str, probe: impl Future<Output = Health>) -> Check {
    let health = tokio::time::timeout(CHECK_MAX, probe).await;
    let (ok, detail) = match health.unwrap_or_else(|_| Health::Down(format!("no answer within {} s", CHECK_MAX.as_secs()))) {
        Health::Good => (true, None),
        Health::Impaired(detail) => (true, Some(detail)),
        Health::Down(detail) => (false, Some(detail)),
        Health::Failed(error) => {
            tracing::warn!(error, check = name, "a readiness check failed");
            (false, Some("it does not work; the reason is in the log".to_owned()))
        }
    };
    Check { name: name.into(), ok, detail }
}

fn failing(FailingTask { name, when_failing, failures }: FailingTask) -> Check {
    let detail = format!("it has failed {failures} times and was restarted; the reason is in the log");
    Check { name: format!("task.{name}").into(), ok: when_failing == WhenFailing::Impaired, detail: Some(detail) }
}

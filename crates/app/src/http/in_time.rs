//! The deadline of a request, `strategy.wait_ms` after it has arrived whole, and the promise that it is answered by then.
//!
//! Handlers pass the deadline down ([`of`]): executors, locks, connections and round trips wait for what is left of it.
//! A request that still hangs [`SLACK`] later is dropped here, and the answer is 503. That is safe at any time, because a
//! client may also disconnect at any time: a command that has begun is finished in its own task, and found under its key.
//!
//! While a body arrives no deadline runs; how long that may take is bounded where bodies are read.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest};
use boxoffice_ports::{Deadline, GRACE};
use tokio::time::{Instant, sleep_until};

use super::problem::{Code, Problem};
use super::state::App;

/// How long after its deadline a request is dropped: the code that does the work has a better answer, and gives it
/// within [`GRACE`].
const SLACK: Duration = GRACE.saturating_add(Duration::from_millis(100));

/// A request's deadline; none while its body arrives.
#[derive(Clone)]
struct RequestDeadline {
    at: Rc<Cell<Option<Deadline>>>,
    wait: Duration,
}

impl RequestDeadline {
    fn new(wait: Duration) -> Self {
        Self { at: Rc::new(Cell::new(Some(Deadline::after(wait)))), wait }
    }

    /// When to check next, and whether the request is dropped if there is no answer by then.
    fn next_check(&self) -> (Instant, bool) {
        let at = self.at.get();
        (at.unwrap_or_else(|| Deadline::after(self.wait)).later_by(SLACK).instant(), at.is_some())
    }
}

/// The deadline of a request that has arrived whole. A request that came by none of our routes has no time at all.
pub(crate) fn of(request: &HttpRequest) -> Deadline {
    let deadline = request.extensions().get::<RequestDeadline>().and_then(|deadline| deadline.at.get());
    deadline.unwrap_or_else(|| Deadline::after(Duration::ZERO))
}

/// Stops the deadline while the body of `request` arrives; it starts anew with [`BodyArrival::done`].
pub(super) fn body_arrives(request: &HttpRequest) -> BodyArrival {
    let deadline = request.extensions().get::<RequestDeadline>().cloned();
    if let Some(deadline) = &deadline {
        deadline.at.set(None);
    }
    BodyArrival(deadline)
}

pub(super) struct BodyArrival(Option<RequestDeadline>);

impl BodyArrival {
    pub(super) fn done(&self) {
        if let Some(deadline) = &self.0 {
            deadline.at.set(Some(Deadline::after(deadline.wait)));
        }
    }
}

/// For `Route::wrap`.
pub(super) async fn in_time(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, Error> {
    let wait = request.app_data::<Data<App>>().map_or(Duration::ZERO, |app| app.settings.strategy.wait());
    let deadline = RequestDeadline::new(wait);
    request.extensions_mut().insert(deadline.clone());
    let original = request.request().clone();
    let mut answer = pin!(next.call(request));
    loop {
        let (until, is_last) = deadline.next_check();
        tokio::select! {
            biased;
            answer = &mut answer => return answer.map(ServiceResponse::map_into_boxed_body),
            () = sleep_until(until) => {}
        }
        // The deadline may have started anew meanwhile.
        if is_last && deadline.next_check() == (until, true) {
            let problem = Problem::new(Code::StoreUnavailable, "there was no answer in time; what was begun is found under its key");
            return Ok(ServiceResponse::from_err(problem, original));
        }
    }
}

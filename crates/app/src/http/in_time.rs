//! The deadline of a request, `strategy.wait_ms` after it has come whole, and the promise that it is answered by then.
//!
//! Handlers pass the deadline down ([`of`]): executors, locks, connections and round trips wait for what is left of it.
//! Whatever still hangs [`SLACK`] later is dropped here, and the answer is 503. That is safe at any time, because a
//! client may go away at any time, too: what has begun is finished in tasks of its own, and found under its key.
//!
//! While a body arrives no deadline runs; how slowly that may happen is bounded where bodies are read.

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

use super::App;
use super::problem::{Code, Problem};

/// How long after its deadline a request is given up: whoever does the work knows better what to answer, and says so
/// within [`GRACE`].
const SLACK: Duration = GRACE.saturating_add(Duration::from_millis(100));

/// A request's deadline; none while its body arrives.
#[derive(Clone)]
struct Patience {
    deadline: Rc<Cell<Option<Deadline>>>,
    wait: Duration,
}

impl Patience {
    fn new(wait: Duration) -> Self {
        Self { deadline: Rc::new(Cell::new(Some(Deadline::after(wait)))), wait }
    }

    /// When to look next, and whether the request is given up if there is no answer by then.
    fn next_look(&self) -> (Instant, bool) {
        let deadline = self.deadline.get();
        (deadline.unwrap_or_else(|| Deadline::after(self.wait)).later_by(SLACK).instant(), deadline.is_some())
    }
}

/// The deadline of a request that has come whole. One that came by no route of ours has no time at all.
pub(crate) fn of(request: &HttpRequest) -> Deadline {
    let deadline = request.extensions().get::<Patience>().and_then(|patience| patience.deadline.get());
    deadline.unwrap_or_else(|| Deadline::after(Duration::ZERO))
}

/// The body of `request` arrives; its time begins anew when that is [`Arriving::over`].
pub(super) fn body_arrives(request: &HttpRequest) -> Arriving {
    let patience = request.extensions().get::<Patience>().cloned();
    if let Some(patience) = &patience {
        patience.deadline.set(None);
    }
    Arriving(patience)
}

pub(super) struct Arriving(Option<Patience>);

impl Arriving {
    pub(super) fn over(&self) {
        if let Some(patience) = &self.0 {
            patience.deadline.set(Some(Deadline::after(patience.wait)));
        }
    }
}

/// For `Route::wrap`.
pub(super) async fn in_time(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, Error> {
    let wait = request.app_data::<Data<App>>().map_or(Duration::ZERO, |app| app.settings.strategy.wait());
    let patience = Patience::new(wait);
    request.extensions_mut().insert(patience.clone());
    let asked = request.request().clone();
    let mut answer = pin!(next.call(request));
    loop {
        let (until, gives_up) = patience.next_look();
        tokio::select! {
            biased;
            answer = &mut answer => return answer.map(ServiceResponse::map_into_boxed_body),
            () = sleep_until(until) => {}
        }
        // The time may have begun anew meanwhile.
        if gives_up && patience.next_look() == (until, true) {
            let problem = Problem::new(Code::StoreUnavailable, "there was no answer in time; what was begun is found under its key");
            return Ok(ServiceResponse::from_err(problem, asked));
        }
    }
}

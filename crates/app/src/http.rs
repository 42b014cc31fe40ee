//! HTTP: routes, and everything between a request's bytes and one call into the engine or a read model.
//!
//! A handler parses, makes one call and maps what came of it. Refusals come in one order, whatever the route: path and
//! method, bearer, rate, body size and type, queue token, idempotency key and body, then the decision. Whatever fails
//! is a [`problem::Problem`] and leaves as `application/problem+json`; [`edge`] is the one place that writes it.

mod admin;
mod answer;
mod auth;
mod body;
mod commands;
mod concerts;
mod door;
mod draw;
mod edge;
mod health;
mod idempotency;
mod in_time;
mod known;
mod limits;
mod metrics;
mod openapi;
mod params;
mod payments;
mod problem;
mod push;
mod queue;
mod queue_token;
mod rate;
mod reservations;
mod routes;
mod seat_pages;
mod seats;
mod signing;
mod system;
mod tickets;
mod turn;
mod views;
mod wallet;

pub mod document;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::web::Data;
use boxoffice_domain::Policy;
use boxoffice_engine::push::{Hub, Pace};
use boxoffice_engine::{Fares, HoldReturns, KnownHolds, Rooms, SeatView, Shows, Stats, Supervisor, TurnEnds};
use boxoffice_ports::{Clock, Executor, Ids, Ledger, StoreError, Stores, Traffic, WaitingRoom};

use crate::config::Settings;

pub use auth::AuthError;
pub(crate) use auth::LANE_NAME_MAX;
pub use health::{Health, Probe};
pub use openapi::openapi;
pub use routes::configure;

/// What the wiring brings together.
pub struct Parts {
    pub settings: Arc<Settings>,
    pub policy: Arc<Policy>,
    pub stores: Stores,
    /// The store's ledger as the engine watches it: what commits through it shows in the seat view at once.
    pub ledger: Arc<dyn Ledger>,
    pub room: Arc<dyn WaitingRoom>,
    /// The same room, as whoever listens to it sees it.
    pub rooms: Arc<Rooms>,
    pub returns: Arc<HoldReturns>,
    pub turns: Arc<TurnEnds>,
    pub holds: Arc<KnownHolds>,
    pub fares: Arc<Fares>,
    /// Hold, extend, release.
    pub seat: Arc<dyn Executor>,
    /// Charge, use.
    pub wallet: Arc<dyn Executor>,
    /// Pay, refund.
    pub payment: Arc<dyn Executor>,
    pub seats: Arc<SeatView>,
    pub shows: Arc<Shows>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    /// What the engine counts, and what the adapters send, for `/metrics`.
    pub stats: Arc<Stats>,
    pub traffic: Arc<Traffic>,
    /// What the instance lives by: readiness and `/metrics` ask how its tasks are.
    pub tasks: Arc<Supervisor>,
    /// What readiness looks at besides store and queue.
    pub probes: Vec<Arc<dyn Probe>>,
}

/// Everything a handler may need. Shared by all workers.
pub struct App {
    pub(crate) parts: Parts,
    pub(crate) auth: auth::Auth,
    pub(crate) signing: signing::SigningKeys,
    pub(crate) tickets: tickets::Tickets,
    pub(crate) rate: rate::RateLimit,
    pub(crate) hub: Arc<Hub>,
    pub(crate) limits: Arc<limits::Limits>,
    pub(crate) crowd: Arc<door::Crowd>,
    pub(crate) seat_pages: seat_pages::SeatPages,
    pub(crate) draws: draw::Draws,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) openapi_json: actix_web::web::Bytes,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// Why the HTTP side cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the keys that tokens are signed with cannot be read: {0}")]
    Secrets(#[from] StoreError),
}

impl App {
    /// Reads the keys that tokens and tickets are signed with, drawing what the store does not have yet.
    pub async fn build(parts: Parts) -> Result<Self, SetupError> {
        let auth = auth::Auth::from_settings(&parts.settings, parts.stores.secrets.as_ref()).await?;
        let signing = signing::SigningKeys::from_settings(&parts.settings, parts.stores.secrets.as_ref()).await?;
        let tickets = tickets::Tickets::of(&parts.stores).await?;
        let hub = Hub::start(parts.rooms.clone(), Arc::new(push::QueueFrames), parts.stats.clone(), Pace::default(), &*parts.tasks);
        let crowd = door::Crowd::new(&parts.settings.http);
        let limits = limits::Limits::new(&parts.settings.http, crowd.max());
        let rate = rate::RateLimit::new(parts.settings.http.requests_per_second_per_user);
        let openapi_json = openapi().to_json().unwrap_or_default().into();
        let metrics = metrics::Metrics::new(parts.stats.clone(), parts.traffic.clone(), parts.tasks.clone(), crowd.clone());
        let seat_pages = seat_pages::SeatPages::new();
        Ok(Self {
            parts,
            auth,
            signing,
            tickets,
            rate,
            hub,
            limits,
            crowd,
            seat_pages,
            draws: draw::Draws::default(),
            metrics,
            openapi_json,
        })
    }
}

/// A server that listens but serves only while `server` is awaited. It leaves signals to whoever runs it: stopping its
/// handle lets requests finish, and then it returns.
pub struct Bound {
    pub server: Server,
    pub address: SocketAddr,
    /// Whoever listens is told to go by it, before the server is stopped.
    pub hub: Arc<Hub>,
}

/// Binds `http.listen`.
pub fn bind(app: Data<App>) -> io::Result<Bound> {
    let hub = app.hub.clone();
    let (server, address) = door::serve(app)?;
    Ok(Bound { server, address, hub })
}

#[cfg(test)]
mod tests;

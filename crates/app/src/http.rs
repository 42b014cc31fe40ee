//! HTTP: routes, and everything between a request's bytes and one call into the engine or a read model.
//!
//! A handler parses, makes one call and maps the result. Refusals come in one order on every route: path and
//! method, bearer, rate, body size and type, queue token, idempotency key and body, then the decision. Every failure
//! is a [`problem::Problem`] and leaves as `application/problem+json`; [`edge`] is the one place that writes it.

mod accepted;
mod admin;
mod answer;
mod auth;
mod body;
mod caller;
mod commands;
mod concerts;
mod connections;
mod draw;
mod draws;
mod edge;
mod execution;
mod headers;
mod health;
mod hex;
mod holding;
mod idempotency;
mod in_time;
mod lane;
mod limits;
mod lookup;
mod metrics;
mod openapi;
mod params;
mod payments;
mod probe;
mod problem;
mod push;
mod queue;
mod queue_token;
mod rate;
mod reservations;
mod routes;
mod seat_maps;
mod seats;
mod signing;
mod state;
mod system;
mod ticket_codes;
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
use boxoffice_engine::push::{Hub, Pace};
use boxoffice_ports::StoreError;

pub use auth::AuthError;
pub use hex::hex;
pub(crate) use lane::LANE_NAME_MAX;
pub use openapi::openapi;
pub use probe::{Health, Probe};
pub use routes::configure;
pub use state::{App, Parts};

/// Why the HTTP side cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the keys that tokens are signed with cannot be read: {0}")]
    Secrets(#[from] StoreError),
}

impl App {
    /// Reads the keys that tokens and tickets are signed with. A key that the store does not have yet is drawn.
    pub async fn build(parts: Parts) -> Result<Self, SetupError> {
        let (settings, secrets) = (&parts.settings, parts.stores.secrets.as_ref());
        let capacity = connections::Capacity::new(&settings.http);
        Ok(Self {
            auth: auth::Auth::from_settings(settings, secrets).await?,
            signing: signing::SigningKeys::from_settings(settings, secrets).await?,
            tickets: ticket_codes::TicketCodes::of(&parts.stores).await?,
            rate: rate::RateLimit::new(settings.http.requests_per_second_per_user),
            hub: Hub::start(parts.rooms.clone(), Arc::new(push::QueueFrames), parts.stats.clone(), Pace::default(), &*parts.tasks),
            limits: limits::Limits::new(&settings.http, capacity.max()),
            seat_maps: seat_maps::SeatMaps::new(),
            draws: draws::Draws::default(),
            metrics: metrics::Metrics::new(parts.stats.clone(), parts.traffic.clone(), parts.tasks.clone(), capacity.clone()),
            openapi_json: openapi().to_json().unwrap_or_default().into(),
            capacity,
            parts,
        })
    }
}

/// A server that listens but serves only while `server` is awaited. It leaves signals to its caller: stopping its
/// handle lets requests finish, and then it returns.
pub struct Bound {
    pub server: Server,
    pub address: SocketAddr,
    /// Asks subscribed clients to leave, before the server is stopped.
    pub hub: Arc<Hub>,
}

/// Binds `http.listen`.
pub fn bind(app: Data<App>) -> io::Result<Bound> {
    let hub = app.hub.clone();
    let (server, address) = connections::serve(app)?;
    Ok(Bound { server, address, hub })
}

#[cfg(test)]
mod tests;

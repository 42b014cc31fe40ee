//! What handlers share: [`Parts`], which the wiring brings together, and [`App`], which adds the HTTP side's own state.

use std::ops::Deref;
use std::sync::Arc;

use actix_web::web::Bytes;
use boxoffice_domain::Policy;
use boxoffice_engine::push::Hub;
use boxoffice_engine::{Catalogue, HoldReturns, KnownHolds, Rooms, SeatView, ServerHealth, Stats, Supervisor, TurnEnds};
use boxoffice_ports::{Clock, Executor, Ids, Ledger, Stores, Traffic, WaitingRoom};

use super::auth::Auth;
use super::connections::Capacity;
use super::draws::Draws;
use super::limits::Limits;
use super::metrics::Metrics;
use super::probe::Probe;
use super::rate::RateLimit;
use super::seat_maps::SeatMaps;
use super::signing::SigningKeys;
use super::ticket_codes::TicketCodes;
use crate::config::Settings;

/// What the wiring brings together.
pub struct Parts {
    pub settings: Arc<Settings>,
    pub policy: Arc<Policy>,
    pub stores: Stores,
    /// The store's ledger as the engine observes it: what commits through it shows in the seat view at once.
    pub ledger: Arc<dyn Ledger>,
    pub room: Arc<dyn WaitingRoom>,
    /// The same room, for subscriptions and for reads from memory.
    pub rooms: Arc<Rooms>,
    pub returns: Arc<HoldReturns>,
    pub turns: Arc<TurnEnds>,
    pub holds: Arc<KnownHolds>,
    pub server_health: Arc<ServerHealth>,
    /// Hold, extend, release.
    pub seat: Arc<dyn Executor>,
    /// Charge, use.
    pub wallet: Arc<dyn Executor>,
    /// Pay, refund.
    pub payment: Arc<dyn Executor>,
    pub seats: Arc<SeatView>,
    pub catalogue: Arc<Catalogue>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    /// What the engine counts, and what the adapters send, for `/metrics`.
    pub stats: Arc<Stats>,
    pub traffic: Arc<Traffic>,
    /// The instance's tasks: readiness and `/metrics` show how they are.
    pub tasks: Arc<Supervisor>,
    /// What readiness checks besides store and queue.
    pub probes: Vec<Arc<dyn Probe>>,
}

/// Everything a handler may need. Shared by all workers.
pub struct App {
    pub(crate) parts: Parts,
    pub(crate) auth: Auth,
    pub(crate) signing: SigningKeys,
    pub(crate) tickets: TicketCodes,
    pub(crate) rate: RateLimit,
    pub(crate) hub: Arc<Hub>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) seat_maps: SeatMaps,
    pub(crate) draws: Draws,
    pub(crate) metrics: Metrics,
    pub(crate) openapi_json: Bytes,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

//! The table of routes: every path and method, what it needs, and which refusals its decision may give. Requests are
//! routed by it and the OpenAPI document is completed from it, so the two cannot differ.

use std::collections::BTreeMap;

use actix_web::Route;
use actix_web::guard;
use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};

use super::in_time::in_time;
use super::problem::Problem;
use super::state::App;
use super::{admin, commands, concerts, draw, health, payments, push, queue, reservations, seats, system, tickets, wallet};

/// What a request must carry, beyond its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) bearer: bool,
    /// The role `operator`.
    pub(super) operator: bool,
    /// A queue token, genuine or with its turn running.
    pub(super) queue_token: bool,
    pub(super) idempotency_key: bool,
    /// May have a body, so size and type are checked.
    pub(super) body: bool,
    /// Takes `limit` and `cursor`.
    pub(super) paged: bool,
}

const NOTHING: Needs = Needs { bearer: false, operator: false, queue_token: false, idempotency_key: false, body: false, paged: false };
const USER: Needs = Needs { bearer: true, ..NOTHING };
const OPERATOR: Needs = Needs { operator: true, ..USER };
/// The queue token stands for its user.
const LISTENER: Needs = Needs { queue_token: true, ..NOTHING };
const QUEUE: Needs = Needs { queue_token: true, ..USER };

impl Needs {
    const fn body(self) -> Self {
        Self { body: true, ..self }
    }

    /// A write with a stored reply.
    const fn keyed(self) -> Self {
        Self { idempotency_key: true, body: true, ..self }
    }

    const fn paged(self) -> Self {
        Self { paged: true, ..self }
    }
}

/// One method of one path.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// Whether it is in OpenAPI.
    pub(super) documented: bool,
    pub(super) needs: Needs,
    /// Statuses of refusals that do not follow from `needs`.
    pub(super) refusals: &'static [u16],
    /// A command without a key.
    command: bool,
    /// Has a bound of its own instead of the deadline that every other request has.
    own_bounds: bool,
    route: fn() -> Route,
}

impl Endpoint {
    /// Whether it is a command, which may be answered 202.
    pub(super) fn may_be_accepted(&self) -> bool {
        self.needs.idempotency_key || self.command
    }

    fn command(self) -> Self {
        Self { command: true, ..self }
    }

    fn own_bounds(self) -> Self {
        Self { own_bounds: true, ..self }
    }
}

fn endpoint(method: Method, path: &'static str, needs: Needs, refusals: &'static [u16], route: fn() -> Route) -> Endpoint {
    Endpoint { method, path, documented: true, needs, refusals, command: false, own_bounds: false, route }
}

fn page(path: &'static str, route: fn() -> Route) -> Endpoint {
    Endpoint { method: Method::GET, path, documented: false, needs: NOTHING, refusals: &[], command: false, own_bounds: false, route }
}

/// GET, and HEAD with it: the same answer, of which the body is not sent (RFC 9110, 9.3.2).
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// All routes.
pub(super) fn table() -> Vec<Endpoint> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    vec![
        page("/", || read().to(system::to_docs)),
        page("/api/docs", || read().to(system::to_docs_page)),
        page("/api/docs/{file:.*}", || read().to(system::docs)),
        page("/api/openapi.json", || read().to(system::openapi_json)),
        endpoint(GET, "/health/live", NOTHING, &[], || read().to(health::live)),
        endpoint(GET, "/health/ready", NOTHING, &[], || read().to(health::ready)).own_bounds(),
        endpoint(GET, "/metrics", NOTHING, &[], || read().to(system::metrics)),
        endpoint(POST, "/api/v1/dev/users", NOTHING.body(), &[403], || web::post().to(system::create_user)),
        endpoint(GET, "/api/v1/concerts", NOTHING.paged(), &[], || read().to(concerts::list)),
        endpoint(GET, "/api/v1/concerts/{id}", NOTHING, &[400, 404], || read().to(concerts::get)),
        endpoint(GET, "/api/v1/concerts/{id}/draw", NOTHING, &[400, 404], || read().to(draw::get)),
        endpoint(GET, "/api/v1/concerts/{id}/draw/entries", NOTHING.paged(), &[404], || read().to(draw::entries)),
        endpoint(POST, "/api/v1/concerts/{id}/queue", USER.body(), &[404, 409], || web::post().to(queue::join)),
        endpoint(GET, "/api/v1/concerts/{id}/dates", QUEUE, &[404], || read().to(concerts::dates)),
        endpoint(GET, "/api/v1/queue", QUEUE, &[], || read().to(queue::get)),
        endpoint(GET, "/api/v1/queue/stream", LISTENER, &[400, 429], || web::get().to(push::stream)),
        endpoint(GET, "/api/v1/queue/socket", LISTENER, &[400, 429], || web::get().to(push::socket)),
        endpoint(POST, "/api/v1/queue/extend", QUEUE.body(), &[422], || web::post().to(queue::extend)),
        endpoint(DELETE, "/api/v1/queue", QUEUE.body(), &[], || web::delete().to(queue::leave)),
        endpoint(GET, "/api/v1/dates/{id}/seats", QUEUE, &[404], || read().to(seats::list)),
        endpoint(POST, "/api/v1/reservations", QUEUE.keyed(), &[404, 409, 422], || web::post().to(reservations::create)),
        endpoint(GET, "/api/v1/reservations", USER.paged(), &[], || read().to(reservations::list)),
        endpoint(GET, "/api/v1/reservations/{id}", USER, &[404], || read().to(reservations::get)),
        endpoint(DELETE, "/api/v1/reservations/{id}", USER.body(), &[404, 409], || web::delete().to(reservations::release)).command(),
        endpoint(POST, "/api/v1/reservations/{id}/extend", QUEUE.keyed(), &[404, 409, 422], || web::post().to(reservations::extend)),
        endpoint(POST, "/api/v1/payments", QUEUE.keyed(), &[402, 404, 409, 422], || web::post().to(payments::create)),
        endpoint(GET, "/api/v1/payments", USER.paged(), &[], || read().to(payments::list)),
        endpoint(GET, "/api/v1/payments/{id}", USER, &[404], || read().to(payments::get)),
        endpoint(POST, "/api/v1/payments/{id}/refund", USER.keyed(), &[404, 409, 422], || web::post().to(payments::refund)),
        endpoint(GET, "/api/v1/commands/{command_id}", USER, &[404], || read().to(commands::get)),
        endpoint(GET, "/api/v1/wallet", USER, &[], || read().to(wallet::get)),
        endpoint(GET, "/api/v1/wallet/entries", USER.paged(), &[], || read().to(wallet::entries)),
        endpoint(POST, "/api/v1/wallet/charges", USER.keyed(), &[403, 409, 422], || web::post().to(wallet::charge)),
        endpoint(POST, "/api/v1/wallet/uses", USER.keyed(), &[402, 409, 422], || web::post().to(wallet::spend)),
        endpoint(GET, "/api/v1/rewards", USER.paged(), &[], || read().to(wallet::rewards)),
        endpoint(POST, "/api/v1/admin/concerts", OPERATOR.body(), &[409], || web::post().to(admin::import)),
        endpoint(GET, "/api/v1/admin/concerts/{id}/admission", OPERATOR, &[404], || read().to(admin::admission)),
        endpoint(PATCH, "/api/v1/admin/concerts/{id}/admission", OPERATOR.body(), &[404], || web::patch().to(admin::set_admission)),
        endpoint(GET, "/api/v1/admin/concerts/{id}/stats", OPERATOR, &[404], || read().to(admin::stats)),
        endpoint(POST, "/api/v1/admin/users/{id}/wallet/charges", OPERATOR.keyed(), &[409, 422], || web::post().to(admin::charge)),
        endpoint(GET, "/api/v1/admin/tickets/{code}", OPERATOR, &[404], || read().to(tickets::get)),
    ]
}

/// The path of a route as it is registered, for metrics.
#[derive(Clone, Copy)]
pub(super) struct RouteName(pub(super) &'static str);

/// Registers every route. Any other path is 404; another method of a known path is 405 with `Allow`.
pub fn configure(app: Data<App>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        // Paths are matched in the order of registration. A fixed path costs a comparison, a path with an id a regular
        // expression: so the fixed ones come first.
        let mut paths: BTreeMap<(bool, &'static str), Vec<Endpoint>> = BTreeMap::new();
        for endpoint in table() {
            paths.entry((endpoint.path.contains('{'), endpoint.path)).or_default().push(endpoint);
        }
        for ((_, path), endpoints) in paths {
            let mut allow: Vec<_> = endpoints.iter().map(|endpoint| endpoint.method.as_str()).collect();
            if allow.contains(&"GET") {
                allow.push("HEAD");
            }
            let allow = allow.join(", ");
            let mut resource = web::resource(path).app_data(RouteName(path));
            for endpoint in endpoints {
                let route = (endpoint.route)();
                resource = resource.route(if endpoint.own_bounds { route } else { route.wrap(from_fn(in_time)) });
            }
            let refuse = move || {
                let problem = Problem::method_not_allowed(allow.as_str());
                async move { Err::<actix_web::HttpResponse, _>(problem) }
            };
            config.service(resource.default_service(web::to(refuse)));
        }
        config.app_data(app).default_service(web::to(|| async { Err::<actix_web::HttpResponse, _>(Problem::not_found()) }));
    }
}

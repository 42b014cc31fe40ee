//! The OpenAPI document: operations and schemas from the handlers, completed from the table of routes with tokens,
//! keys, pages and refusals.

use actix_web::http::{Method, StatusCode};
use utoipa::OpenApi;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, PathItem, Ref, RefOr, Required};

use super::accepted::AcceptedView;
use super::idempotency::{HEADER, KEY_MAX};
use super::params::{LIMIT, LIMIT_MAX};
use super::problem::{FieldError, ProblemDocument};
use super::routes::{self, Endpoint};
use super::{admin, commands, concerts, draw, health, payments, push, queue, reservations, seats, system, tickets, wallet};

const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "boxoffice",
        description = "Concert booking: a waiting room, seat maps, holds, a wallet, payment, refund and rewards.
Money is an integer of minor units. Every error is `application/problem+json`."
    ),
    paths(
        system::create_user,
        health::live,
        health::ready,
        system::metrics,
        concerts::list,
        concerts::get,
        concerts::dates,
        draw::get,
        draw::entries,
        seats::list,
        queue::join,
        queue::get,
        queue::extend,
        push::stream,
        push::socket,
        queue::leave,
        reservations::create,
        reservations::list,
        reservations::get,
        reservations::release,
        reservations::extend,
        payments::create,
        payments::list,
        payments::get,
        payments::refund,
        commands::get,
        wallet::get,
        wallet::entries,
        wallet::charge,
        wallet::spend,
        wallet::rewards,
        admin::import,
        admin::admission,
        admin::set_admission,
        admin::stats,
        admin::charge,
        tickets::get,
    ),
    components(schemas(ProblemDocument, FieldError, AcceptedView))
)]
struct Document;

/// The document as it is served.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let components = document.components.get_or_insert_default();
    let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    for endpoint in routes::table().iter().filter(|endpoint| endpoint.documented) {
        if let Some(operation) = document.paths.paths.get_mut(endpoint.path).and_then(|item| operation(item, &endpoint.method)) {
            complete(operation, endpoint);
        }
    }
    document
}

fn operation<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    match *method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::PATCH => item.patch.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}

fn complete(operation: &mut Operation, endpoint: &Endpoint) {
    let needs = endpoint.needs;
    let parameters = operation.parameters.get_or_insert_default();
    add_parameters(parameters, endpoint);
    if parameters.is_empty() {
        operation.parameters = None;
    }
    if needs.bearer {
        operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])]);
    }
    let responses = &mut operation.responses.responses;
    for (status, response) in &mut *responses {
        if let RefOr::T(response) = response {
            add_headers(response, status, needs.idempotency_key);
        }
    }
    if endpoint.may_be_accepted() {
        responses.insert("202".to_owned(), RefOr::T(accepted()));
    }
    for status in refusals(endpoint) {
        responses.entry(status.to_string()).or_insert_with(|| RefOr::T(problem(status)));
    }
}

fn add_parameters(parameters: &mut Vec<RefOr<Parameter>>, endpoint: &Endpoint) {
    let needs = endpoint.needs;
    if endpoint.path.contains("{id}") {
        let schema = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
        parameters.push(parameter("id", ParameterIn::Path, true, schema, "Its id"));
    }
    if needs.paged {
        let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(LIMIT_MAX)).default(Some(LIMIT.into()));
        parameters.push(parameter("limit", ParameterIn::Query, false, schema, "Items a page"));
        let schema = text().min_length(Some(1));
        parameters.push(parameter("cursor", ParameterIn::Query, false, schema, "The `next_cursor` of the page before"));
    }
    if needs.queue_token {
        parameters.push(parameter("Queue-Token", ParameterIn::Header, needs.bearer, text(), "The token of one's place"));
        if !needs.bearer {
            parameters.push(parameter("token", ParameterIn::Query, false, text(), "The same, for browsers"));
        }
    }
    if endpoint.may_be_accepted() {
        let description = "`respond-async`: 202 at once, under strategies that keep commands in a log; others ignore it";
        parameters.push(parameter("Prefer", ParameterIn::Header, false, text(), description));
    }
    if needs.idempotency_key {
        let description = "The same key and request get the same answer. Quotes around it are optional and not part of it";
        let schema = text().min_length(Some(1)).max_length(Some(KEY_MAX + 2)).pattern(Some(key_pattern()));
        parameters.push(parameter(HEADER, ParameterIn::Header, true, schema, description));
    }
}

/// The statuses that follow from what a request needs, and those of its decision.
fn refusals(endpoint: &Endpoint) -> Vec<u16> {
    let needs = endpoint.needs;
    let mut statuses = endpoint.refusals.to_vec();
    let in_api = endpoint.path.starts_with("/api/");
    for (applies, added) in [
        (needs.bearer, &[400, 401, 429][..]),
        (needs.operator || needs.queue_token, &[403]),
        (needs.paged, &[400]),
        // A malformed id names nothing.
        (endpoint.path.contains("{id}"), &[404]),
        (needs.body, &[400, 408, 413, 415]),
        (in_api, &[500, 503]),
    ] {
        if applies {
            statuses.extend(added);
        }
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// A key within quotes, or a key without them; a pair of quotes alone is no key.
fn key_pattern() -> String {
    let (rest, middle) = (KEY_MAX - 1, KEY_MAX - 2);
    format!(r#"^("[!-~]{{1,{KEY_MAX}}}"|"|[!#-~][!-~]{{0,{rest}}}|"[!-~]{{0,{middle}}}[!#-~])$"#)
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn parameter(name: &str, place: ParameterIn, required: bool, schema: ObjectBuilder, description: &str) -> RefOr<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(if required { Required::True } else { Required::False })
        .description(Some(description))
        .schema(Some(schema))
        .build();
    RefOr::T(parameter)
}

fn text_header(description: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new().schema(Some(text())).description(Some(description)).build()
}

fn add_headers(response: &mut Response, status: &str, keyed: bool) {
    response.headers.insert("X-Request-Id".to_owned(), text_header("Names this request in the log").into());
    if keyed {
        response.headers.insert("Idempotency-Replayed".to_owned(), text_header("`true` when an earlier answer is repeated").into());
    }
    if status == "201" {
        response.headers.insert("Location".to_owned(), text_header("Where it can be read, if it can").into());
    }
}

fn accepted() -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("AcceptedView"))).build();
    let description = "It stands in a log and will be decided: under `kafka` and `rabbitmq`, when it took longer than `wait_ms`";
    let mut response = ResponseBuilder::new().description(description).content("application/json", content).build();
    add_headers(&mut response, "", false);
    response.headers.insert("Location".to_owned(), text_header("Where to ask what became of it").into());
    response.headers.insert("Preference-Applied".to_owned(), text_header("`respond-async`, when that was asked for").into());
    response
}

fn problem(status: u16) -> Response {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused");
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let mut response = ResponseBuilder::new().description(reason).content("application/problem+json", content).build();
    add_headers(&mut response, "", false);
    match status {
        401 => response.headers.insert("WWW-Authenticate".to_owned(), text_header("`Bearer`").into()),
        429 | 503 => response.headers.insert("Retry-After".to_owned(), text_header("Seconds").into()),
        _ => None,
    };
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::to_value(openapi()).unwrap()
    }

    fn documented() -> BTreeSet<(String, String)> {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let operations = |(path, item): (&String, &Value)| {
            item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(operations).collect()
    }

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let table = routes::table();
        let routes = table.iter().filter(|endpoint| endpoint.documented);
        let routed: BTreeSet<_> = routes.map(|endpoint| (endpoint.method.to_string(), endpoint.path.to_owned())).collect();
        assert_eq!(documented(), routed);
    }

    #[test]
    fn every_reference_resolves() {
        fn walk(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| walk(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut references = Vec::new();
        walk(&document, &mut references);
        assert!(references.len() > 50, "{}", references.len());
        for reference in references {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn operations_list_their_parameters_and_refusals() {
        let document = document();
        let hold = &document["paths"]["/api/v1/reservations"]["post"];
        let names: Vec<_> = hold["parameters"].as_array().unwrap().iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["Queue-Token", "Prefer", "Idempotency-Key"]);
        assert_eq!(hold["security"], serde_json::json!([{"bearer": []}]));
        for status in ["201", "202", "400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503"] {
            assert!(hold["responses"].get(status).is_some(), "{status}");
        }
        let problem = &hold["responses"]["422"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(problem, "#/components/schemas/Problem");
        assert!(hold["responses"]["201"]["headers"].get("Location").is_some());
    }

    #[test]
    fn the_waiting_room_is_documented() {
        let document = document().to_string();
        for there in ["/queue/stream", "/queue/socket", "/queue/extend", "/concerts/{id}/draw", "/concerts/{id}/draw/entries", "adaptive"] {
            assert!(document.contains(there), "{there}");
        }
    }

    #[test]
    fn the_pattern_of_a_key_matches_what_the_parser_accepts() {
        let pattern = regex_lite::Regex::new(&key_pattern()).unwrap();
        let long = |count| "k".repeat(count);
        let quoted = |key: &str| format!("\"{key}\"");
        let mut keys = ["", "k", "\"", "\"\"", "\"\"\"", "\"k", "k\"", "a b", "é", "\u{7f}", "~", "!", "a\"b"].map(str::to_owned).to_vec();
        for count in [1, 254, 255, 256, 257] {
            keys.extend([long(count), quoted(&long(count)), format!("\"{}", long(count)), format!("{}\"", long(count))]);
        }
        for key in keys {
            assert_eq!(pattern.is_match(&key), crate::http::idempotency::parse(key.as_bytes()).is_some(), "{key}");
        }
    }
}

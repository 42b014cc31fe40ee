//! The caller of a request: extractors for handlers, in the order of refusals (bearer, then rate, then requests in
//! flight).

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use boxoffice_domain::UserId;

use super::auth::Identity;
use super::connections::ConnectionHandle;
use super::problem::{Code, Problem};
use super::state::App;

/// A caller with a valid token, within the limits of one user.
pub(crate) struct User(pub(crate) UserId);

/// The same with the lane they are in.
pub(crate) struct UserInLane(pub(crate) UserId, pub(crate) Option<Arc<str>>);

/// The same with the role `operator`.
pub(crate) struct Operator(pub(crate) UserId);

fn identify(request: &HttpRequest) -> Result<Identity, Problem> {
    let app = request.app_data::<Data<App>>().ok_or_else(|| Problem::internal("no application data"))?;
    let missing = || Problem::unauthenticated("send Authorization: Bearer and a token");
    let mut values = request.headers().get_all(header::AUTHORIZATION);
    let value = values.next().ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    // Of two, a proxy in front may have checked the other one.
    if values.next().is_some() {
        return Err(Problem::unauthenticated("send one Authorization"));
    }
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    let identity = app.auth.verify(token.trim(), app.clock.now())?;
    app.rate.check(identity.user)?;
    if let Some(connection) = request.conn_data::<ConnectionHandle>() {
        connection.count(app.limits.request(identity.user)?);
    }
    Ok(identity)
}

/// Whether the caller is an operator, by the request's token alone.
pub(super) fn is_operator(request: &HttpRequest) -> bool {
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let app = request.app_data::<Data<App>>();
    app.zip(token).is_some_and(|(app, (_, token))| app.auth.verify(token.trim(), app.clock.now()).is_ok_and(|identity| identity.operator))
}

impl FromRequest for User {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request).map(|identity| Self(identity.user)))
    }
}

impl FromRequest for UserInLane {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request).map(|identity| Self(identity.user, identity.lane)))
    }
}

impl FromRequest for Operator {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request).and_then(|identity| match identity.operator {
            true => Ok(Self(identity.user)),
            false => Err(Problem::new(Code::Forbidden, "this takes the role operator")),
        }))
    }
}

//! Paths and queries: ids, pages of lists; unknown parameters are refused.

use std::borrow::Cow;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice_domain::text;
use uuid::Uuid;

use super::problem::Problem;

/// The `{id}` of a path; an id that is no UUID names nothing.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: From<Uuid>> FromRequest for Id<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.match_info().get("id").and_then(parse_id).map(|id| Self(id.into())).ok_or_else(Problem::not_found))
    }
}

/// Only in the usual form: 36 characters with hyphens.
fn parse_id(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// Checks text that a store keeps, or that is compared with such: by the one rule of [`boxoffice_domain::text`].
pub(crate) fn text(field: &str, value: Option<&str>, chars_max: usize) -> Result<(), Problem> {
    value.and_then(|value| text::fault(value, chars_max)).map_or(Ok(()), |reason| Err(Problem::field(field, reason)))
}

/// Items of a page without `?limit=`.
pub(super) const LIMIT: u32 = 50;
pub(super) const LIMIT_MAX: u32 = 200;

/// The query of a request; each parameter is known and given once.
pub(crate) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    pub(crate) fn of(request: &'a HttpRequest, known: &[&str]) -> Result<Self, Problem> {
        let text = request.query_string();
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&&*name) {
                return Err(Problem::field(name, "is no parameter of this query"));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::field(name, "must be given once"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// For routes without parameters.
    pub(crate) fn none(request: &HttpRequest) -> Result<(), Problem> {
        if request.query_string().is_empty() { Ok(()) } else { Query::of(request, &[]).map(|_| ()) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// The requested page of a list.
pub(crate) struct Paging<K> {
    pub(crate) limit: u32,
    pub(crate) after: Option<K>,
}

impl<K: Cursor> Paging<K> {
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let query = Query::of(request, &["limit", "cursor"])?;
        let limit = match query.get("limit") {
            None => LIMIT,
            Some(text) => Some(text)
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| Problem::field("limit", format!("must be from 1 to {LIMIT_MAX}")))?,
        };
        let after = query.get("cursor").map(|text| decode(text).ok_or_else(|| Problem::field("cursor", "is not one of this list's")));
        Ok(Self { limit, after: after.transpose()? })
    }
}

/// Where a page ended: the key of its last row. Opaque to clients; a list accepts only its own.
pub(crate) trait Cursor: Sized {
    /// Distinguishes the cursors of one list from another's.
    const TAG: u8;
    fn write(&self, bytes: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Option<Self>;
}

pub(crate) fn encode<K: Cursor>(key: &K) -> String {
    let mut bytes = vec![K::TAG];
    key.write(&mut bytes);
    BASE64.encode(bytes)
}

fn decode<K: Cursor>(text: &str) -> Option<K> {
    match BASE64.decode(text).ok()?.split_first()? {
        (tag, bytes) if *tag == K::TAG => K::read(bytes),
        _ => None,
    }
}

/// The number of a journal's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeqCursor<const TAG: u8>(pub(crate) i64);

impl<const TAG: u8> Cursor for SeqCursor<TAG> {
    const TAG: u8 = TAG;

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.0.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(i64::from_be_bytes(bytes)))
    }
}

/// The id of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdCursor<const TAG: u8>(pub(crate) Uuid);

impl<const TAG: u8> Cursor for IdCursor<TAG> {
    const TAG: u8 = TAG;

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.0.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Code;
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn ids_are_hyphenated_uuids() {
        let text = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(parse_id(text).unwrap().to_string(), text);
        for wrong in
            ["", "1", "01890a5dac96774bbcceb302099a8057", "{01890a5d-ac96-774b-bcce-b302099a805}", "zz890a5d-ac96-774b-bcce-b302099a8057"]
        {
            assert_eq!(parse_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paging_has_bounds_and_refuses_unknown_parameters() {
        let paging = |query: &str| {
            let request = TestRequest::with_uri(&format!("/x?{query}")).to_http_request();
            Paging::<SeqCursor<1>>::of(&request).map(|paging| (paging.limit, paging.after)).map_err(|problem| problem.code())
        };
        let cursor = encode(&SeqCursor::<1>(7));
        assert_eq!(paging(""), Ok((50, None)));
        assert_eq!(paging(&format!("limit=200&cursor={cursor}")), Ok((200, Some(SeqCursor(7)))));
        let other_list = encode(&SeqCursor::<2>(7));
        for wrong in [
            "limit=0",
            "limit=201",
            "limit=x",
            "limit=-1",
            "limit=%2B1",
            "limit=",
            "limit=1&limit=2",
            "cursor=",
            "cursor=AAAA",
            "page=2",
            &format!("cursor={other_list}"),
        ] {
            assert_eq!(paging(wrong), Err(Code::InvalidRequest), "{wrong}");
        }
    }

    #[test]
    fn cursors_are_read_as_they_were_written() {
        let key = IdCursor::<3>(Uuid::from_u128(5));
        assert_eq!(decode::<IdCursor<3>>(&encode(&key)), Some(key));
        assert_eq!(decode::<IdCursor<4>>(&encode(&key)), None);
        assert_eq!(decode::<SeqCursor<3>>(&encode(&key)), None);
    }
}

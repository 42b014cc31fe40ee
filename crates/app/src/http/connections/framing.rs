//! Where a request ends, so that no byte of the next one is passed on before the answer has been sent.
//!
//! Heads are parsed by the parser of the HTTP server itself, with the same bounds, and checked by the same rules: a
//! request that is accepted here is framed there in the same way. A request that is refused here is never passed on.
//!
//! *Bounds.* [`HEAD_MAX`] for a head, [`LINE_MAX`] for the line before a chunk, [`TRAILER_MAX`] after the last chunk.

use std::mem::MaybeUninit;

use actix_web::http::Uri;
use httparse::Status;

/// The longest head, bytes: two tokens of 8 KiB, and as much again.
pub(super) const HEAD_MAX: usize = 32 << 10;
/// The HTTP server's own bound.
const HEADERS_MAX: usize = 96;
/// The longest line with the size of a chunk, bytes.
const LINE_MAX: usize = 256;
/// Fields after the last chunk, bytes.
const TRAILER_MAX: usize = 8 << 10;

/// The state of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Not whole yet.
    Partial,
    /// Its bytes, and the body that follows them.
    Whole(usize, Body),
    TooLarge,
    Malformed,
}

/// The part of a body that is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunks(Chunks),
}

/// Bytes that are no chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

const EMPTY: Body = Body::Length(0);

pub(super) fn head(bytes: &[u8]) -> Head {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(length)) if length <= HEAD_MAX => body_of(&request).map_or(Head::Malformed, |body| Head::Whole(length, body)),
        Ok(Status::Partial) if bytes.len() <= HEAD_MAX => Head::Partial,
        Ok(_) => Head::TooLarge,
        Err(_) => Head::Malformed,
    }
}

/// By RFC 9112, 6.3; `None` where two readings are possible.
fn body_of(request: &httparse::Request<'_, '_>) -> Option<Body> {
    let is_new = request.version? == 1;
    let (mut hosts, mut length, mut chunked, mut to_websocket) = (0, None, false, false);
    for header in &*request.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("host") => hosts += 1,
            7 if is("upgrade") => to_websocket |= trimmed(header.value)?.eq_ignore_ascii_case("websocket"),
            14 if is("content-length") => {
                let value = trimmed(header.value)?;
                let is_first = length.replace(value.parse::<u64>().ok()?).is_none();
                if !is_first || value.starts_with('+') {
                    return None;
                }
            }
            17 if is("transfer-encoding") => {
                if chunked || !is_new || !trimmed(header.value)?.eq_ignore_ascii_case("chunked") {
                    return None;
                }
                chunked = true;
            }
            _ => {}
        }
    }
    let method = request.method?;
    let has_no_length = length.is_none() && !to_websocket;
    if hosts > 1 || (is_new && hosts == 0) || (chunked && length.is_some()) || (!is_new && method == "POST" && has_no_length) {
        return None;
    }
    let target = request.path?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~' | b'?' | b'=' | b'&' | b'%');
    if !(target.starts_with('/') && target.bytes().all(is_plain)) && Uri::try_from(target).is_err() {
        return None;
    }
    Some(match length {
        _ if chunked => Body::Chunks(Chunks::default()),
        // What follows is no HTTP, and none of it is passed on.
        _ if to_websocket || method == "CONNECT" => EMPTY,
        length => Body::Length(length.unwrap_or(0)),
    })
}

fn trimmed(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|value| value.is_ascii()).map(str::trim)
}

impl Body {
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.at == At::End,
        }
    }

    /// How many of `bytes` belong to it.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunks(chunks) => chunks.advance(bytes),
        }
    }
}

/// A body in chunks (RFC 9112, 7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of this chunk that are still to come.
    left: u64,
    /// Bytes of this line, or of all fields after the last chunk.
    line: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    SizeRest,
    /// White space after the size.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The start of a line after the last chunk.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        while taken < bytes.len() && self.at != At::End {
            if self.at == At::Data {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                self.left -= data as u64;
                taken += data;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
            } else {
                self.at = self.step(bytes[taken])?;
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        let is_trailer = matches!(self.at, At::Line | At::Trailer | At::TrailerLf);
        self.line += 1;
        if self.line > if is_trailer { TRAILER_MAX } else { LINE_MAX } {
            return Err(Malformed);
        }
        Ok(match (self.at, byte) {
            (At::Size | At::SizeRest, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.left = self.left.checked_mul(16).ok_or(Malformed)? + digit;
                At::SizeRest
            }
            (At::SizeRest | At::Space, b' ' | b'\t') => At::Space,
            (At::SizeRest | At::Space, b';') => At::Extension,
            (At::SizeRest | At::Space | At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => At::Extension,
            (At::SizeLf, b'\n') => {
                self.line = 0;
                if self.left > 0 { At::Data } else { At::Line }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.line = 0;
                At::Size
            }
            (At::Line, b'\r') => At::EndLf,
            (At::Line | At::Trailer, byte) => {
                if byte == b'\r' {
                    At::TrailerLf
                } else {
                    At::Trailer
                }
            }
            (At::TrailerLf, b'\n') => At::Line,
            (At::EndLf, b'\n') => At::End,
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::h1::{Codec, Message, MessageType};
    use actix_web::web::BytesMut;
    use proptest::prelude::*;
    use tokio_util::codec::Decoder as _;

    /// Where the HTTP server ends the first request of these bytes; `None` if it does not end, or is refused.
    fn by_the_server(bytes: &[u8]) -> Option<usize> {
        // Its clock runs on the runtime of a worker.
        actix_web::rt::Runtime::new().unwrap().block_on(async {
            let (mut codec, mut rest) = (Codec::default(), BytesMut::from(bytes));
            loop {
                match codec.decode(&mut rest).ok()?? {
                    Message::Item(_) if codec.message_type() != MessageType::None => {}
                    Message::Chunk(Some(_)) => {}
                    Message::Item(_) | Message::Chunk(None) => return Some(bytes.len() - rest.len()),
                }
            }
        })
    }

    fn by_us(bytes: &[u8]) -> Option<usize> {
        let Head::Whole(length, mut body) = head(bytes) else { return None };
        let taken = body.advance(&bytes[length..]).ok()?;
        body.is_whole().then_some(length + taken)
    }

    const HEAD: &str = "POST /api/v1/wallet/charges?a=%20b HTTP/1.1\r\nhost: x\r\n";

    #[test]
    fn requests_end_where_the_http_server_ends_them() {
        for (rest, whole) in [
            ("\r\n", true),
            ("content-length: 0\r\n\r\n", true),
            ("content-length: 3\r\n\r\nabc", true),
            ("content-length: 3\r\n\r\nab", false),
            ("content-length: 3\r\ncontent-length: 3\r\n\r\nabc", false),
            ("content-length: +3\r\n\r\nabc", false),
            ("content-length: 3, 3\r\n\r\nabc", false),
            ("content-length: \r\n\r\n", false),
            ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true),
            ("Transfer-Encoding: Chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n1 \r\nd\r\n0\r\nx: y\r\n\r\n", true),
            ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", false),
            ("transfer-encoding: chunked\r\n\r\nx\r\n", false),
            ("transfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", false),
            ("transfer-encoding: chunked\r\n\r\n10000000000000000\r\n", false),
            ("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false),
            ("transfer-encoding: identity\r\n\r\n", false),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", false),
            ("transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n", false),
            ("host: y\r\n\r\n", false),
            ("a b: c\r\n\r\n", false),
        ] {
            let request = format!("{HEAD}{rest}");
            // An unfinished request would take its end from the next one.
            for next in [Some(""), whole.then_some("GET / HTTP/1.0\r\n\r\n")].into_iter().flatten() {
                let bytes = format!("{request}{next}");
                assert_eq!(by_us(bytes.as_bytes()), whole.then_some(request.len()), "{bytes:?}");
                assert_eq!(by_the_server(bytes.as_bytes()), whole.then_some(request.len()), "{bytes:?}");
            }
        }
        for (request, whole) in [
            ("GET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", true),
            ("GET http://x/a HTTP/1.1\r\nhost: x\r\n\r\n", true),
            ("POST / HTTP/1.0\r\n\r\n", false),
            ("POST / HTTP/1.0\r\ncontent-length: 0\r\n\r\n", true),
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", false),
            ("GET / HTTP/9.9\r\n\r\n", false),
            ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", true),
        ] {
            assert_eq!(by_the_server(request.as_bytes()).is_some(), whole, "{request:?}");
            assert_eq!(by_us(request.as_bytes()), whole.then_some(request.len()), "{request:?}");
        }
    }

    #[test]
    fn targets_are_judged_as_the_http_server_judges_them() {
        for target in [
            "/",
            "/\u{fc}",
            "/a[b]",
            "/{a}",
            "/a\"b",
            "a\\b",
            "//x",
            "x",
            "*",
            "/a#b",
            "/%",
            "?",
            "http://",
            "http://x/a?b",
            "/a?b[]=\u{e9}",
        ] {
            let request = format!("GET {target} HTTP/1.0\r\n\r\n");
            assert_eq!(by_us(request.as_bytes()), by_the_server(request.as_bytes()), "{target:?}");
        }
    }

    #[test]
    fn endless_heads_and_lines_are_refused() {
        assert_eq!(head(&[b'a'; HEAD_MAX]), Head::Partial);
        assert_eq!(head(&[b'a'; HEAD_MAX + 1]), Head::TooLarge);
        let many: String = (0..=HEADERS_MAX).map(|at| format!("x{at}: y\r\n")).collect();
        assert_eq!(head(format!("{HEAD}{many}").as_bytes()), Head::Malformed);
        for endless in [format!("1;{}", "x".repeat(LINE_MAX)), format!("0\r\n{}", "x".repeat(TRAILER_MAX + 1))] {
            assert_eq!(Chunks::default().advance(endless.as_bytes()), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn an_accepted_request_is_framed_as_the_http_server_frames_it(
            version in 0..2, headers in prop::collection::vec(0..8_usize, 0..4), body in "(\\PC|[0-9a-f\r\n;]){0,24}", cut in 0..400_usize,
        ) {
            const HEADERS: [&str; 8] = [
                "host: x", "content-length: 4", "content-length: 0", "transfer-encoding: chunked", "transfer-encoding: x", "expect: 100-continue",
                "connection: close", "x: y",
            ];
            let headers: String = headers.into_iter().map(|at| format!("{}\r\n", HEADERS[at])).collect();
            let bytes = format!("POST /a HTTP/1.{version}\r\n{headers}\r\n{body}");
            let bytes = &bytes.as_bytes()[..bytes.len().min(cut)];
            // A request may be refused here alone; a request that ends here must end there.
            if let Some(end) = by_us(bytes) {
                prop_assert_eq!(by_the_server(bytes), Some(end));
            }
        }

        #[test]
        fn chunks_end_at_the_same_byte_however_they_are_cut(sizes in prop::collection::vec(1..40_usize, 0..5), piece in 1..30_usize) {
            let chunks: String = sizes.iter().map(|size| format!("{size:x}\r\n{}\r\n", "y".repeat(*size))).collect();
            let whole = format!("{chunks}0\r\n\r\n");
            let bytes = format!("{whole}GET");
            let (mut body, mut taken) = (Body::Chunks(Chunks::default()), 0);
            for piece in bytes.as_bytes().chunks(piece) {
                taken += body.advance(piece).unwrap();
            }
            prop_assert!(body.is_whole());
            prop_assert_eq!(taken, whole.len());
        }
    }
}

//! JSON of clients and files, read strictly: UTF-8, one document, no member named twice at any depth. A fault names its
//! field by its path, such as `dates[0].seats[2].price`.
//!
//! Files may begin with a byte order mark ([`read_file`]). Line ends are white space.

use boxoffice_domain::concert::Fault;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Why a document cannot be read.
#[derive(Debug)]
pub enum JsonFault {
    /// The encoding or the syntax, with the line.
    Syntax(String),
    /// A value; `field` is empty if the document as a whole is at fault.
    Value(Fault),
}

impl From<JsonFault> for Fault {
    fn from(fault: JsonFault) -> Self {
        match fault {
            JsonFault::Syntax(reason) => Self { field: String::new(), reason },
            JsonFault::Value(fault) => fault,
        }
    }
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(Fault { field, reason }) if !field.is_empty() => write!(f, "{field}: {reason}"),
            Self::Syntax(reason) | Self::Value(Fault { reason, .. }) => f.write_str(reason),
        }
    }
}

/// [`read`] for a file: a byte order mark at its beginning is ignored.
pub fn read_file<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonFault> {
    read(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes))
}

/// Reads one document.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonFault> {
    let text = utf8(bytes)?;
    // The path is determined only after a failure.
    serde_json::from_str(text).map_err(|error| {
        if !error.is_data() {
            return JsonFault::Syntax(error.to_string());
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(located) => JsonFault::Value(at(&located.path().to_string(), &located.inner().to_string())),
            Ok(_) => JsonFault::Syntax(error.to_string()),
        }
    })
}

/// [`read`] for a value that was parsed already.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|located| at(&located.path().to_string(), &located.inner().to_string()))
}

fn utf8(bytes: &[u8]) -> Result<&str, JsonFault> {
    let refused = |reason: String| Err(JsonFault::Syntax(reason));
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, _, ..] | [_, 0, ..] => refused("UTF-16 or UTF-32: save it as UTF-8".to_owned()),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => refused(format!("not UTF-8 from byte {} on: save it as UTF-8", error.valid_up_to())),
        },
    }
}

/// The field and what is wrong with it, from a path and serde's message.
fn at(path: &str, message: &str) -> Fault {
    let reason = message.rsplit_once(" at line ").map_or(message, |(reason, _)| reason);
    let path = path.trim_start_matches('.');
    // If a field is missing or there twice, the path is that of its parent.
    let named = |prefix| reason.strip_prefix(prefix).and_then(|rest: &str| rest.split('`').next());
    let (missing, twice) = (named("missing field `"), named("duplicate field `"));
    let field = match missing.or(twice) {
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => path.to_owned(),
    };
    let reason = match () {
        () if missing.is_some() => "is required",
        () if reason.starts_with("unknown field") => "is no field of this request",
        () if twice.is_some() => "must be given once",
        () => reason,
    };
    Fault { field, reason: reason.to_owned() }
}

/// Any JSON; a member named twice is an error, while [`Value`] itself would keep the last.
pub struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(list.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
                let mut map = Map::new();
                while let Some(name) = members.next_key::<String>()? {
                    if map.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    let Strict(value) = members.next_value()?;
                    map.insert(name, value);
                }
                Ok(map.into())
            }
        }

        deserializer.deserialize_any(Any).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn strict(text: impl AsRef<[u8]>) -> Result<Value, Fault> {
        read_file::<Strict>(text.as_ref()).map(|strict| strict.0).map_err(Fault::from)
    }

    #[test]
    fn a_member_named_twice_is_refused_wherever_it_stands() {
        for (text, field) in [
            (r#"{"a": 1, "a": 2}"#, "a"),
            (r#"{"a": 1, "\u0061": 2}"#, "a"),
            (r#"{"dates": [{"seats": [{"price": 1000, "price": 1}]}]}"#, "dates[0].seats[0].price"),
            (r#"[{}, {"b": {"c": null, "c": null}}]"#, "[1].b.c"),
        ] {
            let fault = strict(text).unwrap_err();
            assert_eq!((fault.field.as_str(), fault.reason.as_str()), (field, "must be given once"), "{text}");
        }
    }

    #[test]
    fn every_other_document_is_read_like_serde_json_reads_it() {
        let text = r#"{"a": [null, true, -1, 18446744073709551615, 1.5, "x", {}], "b": {"a": "ü"}}"#;
        assert_eq!(strict(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_byte_order_mark_and_any_line_ends_are_fine_and_other_encodings_are_named() {
        assert_eq!(strict("\u{feff}{\r\n\"a\": 1\r\n}\r\n").unwrap(), json!({ "a": 1 }));
        assert!(read::<Strict>("\u{feff}{}".as_bytes()).is_err(), "a request has none (RFC 8259, 8.1)");
        for (order, name) in [(u16::to_le_bytes as fn(u16) -> [u8; 2], "little"), (u16::to_be_bytes, "big")] {
            for text in ["{\"a\": 1}", "\u{feff}{}"] {
                let bytes: Vec<u8> = text.encode_utf16().flat_map(order).collect();
                let fault = strict(bytes).unwrap_err();
                assert!(fault.reason.contains("UTF-16"), "{name}: {fault:?}");
            }
        }
        let fault = strict(b"{\"a\": \"\xE9\"}").unwrap_err();
        assert!(fault.reason.contains("byte 7"), "{fault:?}");
        assert!(strict("").is_err() && strict("\u{feff}").is_err() && strict("{} {}").is_err());
    }
}

//! The setting `max_active`, how many users may be active at once: a number, or `"auto"`.

use boxoffice_domain::admission::MAX_ACTIVE_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

const AUTO: &str = "auto";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxActive {
    At(u32),
    /// Derived from the seats left, the length of a turn and what the servers can carry.
    Auto,
}

impl MaxActive {
    pub fn of(max_active: u32, auto: bool) -> Self {
        if auto { Self::Auto } else { Self::At(max_active) }
    }

    /// The number, with `"auto"` the highest allowed one, and whether it is `"auto"`.
    pub fn parts(self) -> (u32, bool) {
        match self {
            Self::At(max_active) => (max_active, false),
            Self::Auto => (MAX_ACTIVE_MAX, true),
        }
    }
}

impl Serialize for MaxActive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::At(max_active) => serializer.serialize_u32(*max_active),
            Self::Auto => serializer.serialize_str(AUTO),
        }
    }
}

impl<'de> Deserialize<'de> for MaxActive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = MaxActive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number or \"{AUTO}\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<MaxActive, E> {
                u32::try_from(number).map(MaxActive::At).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<MaxActive, E> {
                u32::try_from(number).map(MaxActive::At).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MaxActive, E> {
                if text == AUTO { Ok(MaxActive::Auto) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl PartialSchema for MaxActive {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_ACTIVE_MAX));
        let auto = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([AUTO]));
        OneOfBuilder::new().item(number).item(auto).into()
    }
}

impl ToSchema for MaxActive {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_auto_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<MaxActive>(text);
        assert_eq!(read("7").unwrap(), MaxActive::At(7));
        assert_eq!(read("\"auto\"").unwrap(), MaxActive::Auto);
        for wrong in ["-1", "1.5", "\"7\"", "\"Auto\"", "null", "true", "4294967296"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("a whole number or \"auto\""), "{wrong}: {error}");
        }
        for shown in ["7", "\"auto\""] {
            assert_eq!(serde_json::to_string(&read(shown).unwrap()).unwrap(), shown);
        }
    }
}

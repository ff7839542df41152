//! What a field may be besides its value: absent, or wrong.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer};

/// A field of the file. One that is wrong has been reported already, so that the rest of the file can
/// be read as if it were right.
#[derive(Clone, Debug, Default)]
pub(in crate::config) enum Field<T> {
    #[default]
    Absent,
    Wrong,
    Is(T),
}

/// A list whose items can be wrong one by one.
pub(in crate::config) type List<T> = Field<Vec<Field<T>>>;

impl<T> Field<T> {
    pub(in crate::config) fn value(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            _ => None,
        }
    }

    pub(in crate::config) fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            _ => None,
        }
    }

    pub(in crate::config) fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }

    pub(in crate::config) fn or_default(self) -> T
    where
        T: Default,
    {
        self.value().unwrap_or_default()
    }

    pub(in crate::config) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(in crate::config) fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The deserializer has noted the error; see `decode`.
        Ok(T::deserialize(deserializer).map_or(Self::Wrong, Field::Is))
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

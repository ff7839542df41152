//! What a field may be besides its value: absent, wrong, or not served yet.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Visitor};

use crate::config::scalar::{AutoBool, EndpointAddress, GatewayDuration};

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

/// A field that is known but not served yet: anything but "off" is refused, never ignored.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Later<T>(pub(in crate::config) T);

/// What a field that is not served yet may say.
pub(in crate::config) trait Off {
    /// What to do about it.
    const INSTEAD: &'static str;

    /// Whether the value asks for nothing that is not served.
    fn is_off(&self) -> bool;
}

struct LaterVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Off> Visitor<'de> for LaterVisitor<T> {
    type Value = Later<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Later<T>, D::Error> {
        let value = T::deserialize(inner)?;
        if value.is_off() {
            return Ok(Later(value));
        }
        Err(serde::de::Error::custom(format_args!("not supported yet; {}", T::INSTEAD)))
    }
}

impl<'de, T: Deserialize<'de> + Off> Deserialize<'de> for Later<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct("Later", LaterVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Later<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Later{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = generator.subschema_for::<T>();
        schema.insert("$comment".to_owned(), "Not supported yet: refused unless it is off.".into());
        schema
    }
}

impl<T: Off> Off for Field<T> {
    const INSTEAD: &'static str = T::INSTEAD;

    /// A wrong one has been reported already.
    fn is_off(&self) -> bool {
        self.get().is_none_or(Off::is_off)
    }
}

impl<T> Off for Vec<T> {
    const INSTEAD: &'static str = "remove it or write []";

    fn is_off(&self) -> bool {
        self.is_empty()
    }
}

/// `off!(Type, "what to write", value => when it is off)`.
macro_rules! off {
    ($($type:ty, $instead:literal, $value:pat => $off:expr;)+) => {$(
        impl $crate::config::raw::field::Off for $type {
            const INSTEAD: &'static str = $instead;

            fn is_off(&self) -> bool {
                let $value = self;
                $off
            }
        }
    )+};
}

off! {
    bool, "remove it or write false", value => !value;
    u32, "remove it or write 0", number => *number == 0;
    f64, "remove it or write 0", number => *number == 0.0;
    String, "remove it or write \"\"", text => text.is_empty();
    GatewayDuration, "remove it or write 0s", duration => duration.0.is_zero();
    AutoBool, "remove it or write false", value => value.0 != Some(true);
    EndpointAddress, "remove it", _ => false;
}

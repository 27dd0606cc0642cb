//! Tensor names that a descriptor gives as text, or as a table that says more.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// The name of a tensor that may be absent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NameForm {
    pub(crate) name: String,
    /// Whether a layer may lack it.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// The name of a tensor of a router that cannot be run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SharedNameForm {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) optional: bool,
    /// The axis along which there is one entry per expert.
    pub(crate) expert_axis: Option<usize>,
}

impl From<String> for NameForm {
    fn from(name: String) -> Self {
        Self { name, optional: false }
    }
}

impl From<String> for SharedNameForm {
    fn from(name: String) -> Self {
        Self { name, optional: false, expert_axis: None }
    }
}

/// `"name"`, or a table with `name` and more.
#[derive(Debug, Clone)]
pub(crate) struct Named<T>(pub(crate) T);

impl<'de, T: Deserialize<'de> + From<String>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + From<String>> Visitor<'de> for Either<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tensor's name, or a table with `name`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Named(T::from(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Named).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

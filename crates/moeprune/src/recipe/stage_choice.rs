//! The name of a stage's implementation, with its parameters.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A stage's implementation by the name it is [registered](crate::Registry) under, and the
/// parameters that differ from its defaults.
///
/// In TOML and JSON either the name alone or a table: `"owl"`, or `{ name = "owl", lambda = 0.1 }`.
/// On the command line `owl`, or `owl:lambda=0.1,multiplier=5`.
///
/// ```
/// use moeprune::recipe::{Parameter, StageChoice};
///
/// let owl: StageChoice = "owl:lambda=0.1,mean=exact".parse()?;
/// assert_eq!(owl.name, "owl");
/// assert_eq!(owl.parameters["lambda"], Parameter::Number(0.1));
/// assert_eq!(owl.parameters["mean"], Parameter::Text("exact".into()));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a name and its parameters")]
pub struct StageChoice {
    /// What it is registered under.
    pub name: String,
    /// By key.
    pub parameters: BTreeMap<String, Parameter>,
}

/// The value of a parameter. Nothing nests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(clippy::exhaustive_enums, reason = "what a parameter can be")]
pub enum Parameter {
    /// `true` or `false`
    Switch(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// A word.
    Text(String),
}

impl StageChoice {
    /// The implementation of this name with its default parameters.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), parameters: BTreeMap::new() }
    }

    /// Whether both are one implementation, with any parameters.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// With one more parameter.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Parameter>) -> Self {
        self.parameters.insert(key.to_owned(), value.into());
        self
    }
}

impl From<&str> for StageChoice {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<bool> for Parameter {
    fn from(value: bool) -> Self {
        Self::Switch(value)
    }
}

impl From<i64> for Parameter {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Parameter {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Parameter {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl FromStr for Parameter {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if let Ok(switch) = text.parse() {
            Self::Switch(switch)
        } else if let Ok(integer) = text.parse() {
            Self::Integer(integer)
        } else if let Ok(number) = text.parse() {
            Self::Number(number)
        } else {
            Self::Text(text.to_owned())
        })
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            // A whole number keeps its point, so that it reads back as what it is.
            Self::Number(value) => write!(f, "{value:?}"),
            Self::Text(value) => value.fmt(f),
        }
    }
}

impl fmt::Display for StageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, (key, value)) in self.parameters.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl FromStr for StageChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').map_or((text, None), |(n, r)| (n, Some(r)));
        if name.is_empty() {
            return Err(format!("`{text}` names nothing"));
        }
        let mut choice = Self::new(name);
        for pair in rest.into_iter().flat_map(|rest| rest.split(',')) {
            let (key, value) =
                pair.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                    format!("`{pair}` is not key=value; write {name}:key=value,key=value")
                })?;
            let Ok(value) = value.parse();
            if choice.parameters.insert(key.to_owned(), value).is_some() {
                return Err(format!("`{key}` is given twice"));
            }
        }
        Ok(choice)
    }
}

impl Serialize for StageChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.parameters.is_empty() {
            return serializer.serialize_str(&self.name);
        }
        #[derive(Serialize)]
        struct Table<'a> {
            name: &'a str,
            #[serde(flatten)]
            parameters: &'a BTreeMap<String, Parameter>,
        }
        Table { name: &self.name, parameters: &self.parameters }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StageChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a name, or a table with a name and parameters")]
        enum Written {
            Name(String),
            Table(BTreeMap<String, Parameter>),
        }
        match Written::deserialize(deserializer)? {
            Written::Name(name) => Ok(Self::new(&name)),
            Written::Table(mut parameters) => match parameters.remove("name") {
                Some(Parameter::Text(name)) => Ok(Self { name, parameters }),
                _ => Err(D::Error::custom("a stage's table needs a `name` that is a word")),
            },
        }
    }
}

impl schemars::JsonSchema for StageChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StageChoice".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "object", "required": ["name"] },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_tables_say_the_same() {
        let check = |text: &str, json: &str| {
            let choice: StageChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
            assert_eq!(serde_json::to_string(&choice).unwrap(), json);
            assert_eq!(serde_json::from_str::<StageChoice>(json).unwrap(), choice);
        };
        check("router", r#""router""#);
        check("owl:lambda=0.1", r#"{"name":"owl","lambda":0.1}"#);
        check("owl:lambda=5.0,mean=exact", r#"{"name":"owl","lambda":5.0,"mean":"exact"}"#);
        check("kmeans:seed=3", r#"{"name":"kmeans","seed":3}"#);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", ":a=1", "owl:", "owl:lambda", "owl:=1", "owl:a=1,a=2"] {
            assert!(text.parse::<StageChoice>().is_err(), "{text}");
        }
        for json in ["1", "[]", "{}", r#"{"name":1}"#, r#"{"name":"owl","lambda":[1]}"#] {
            assert!(serde_json::from_str::<StageChoice>(json).is_err(), "{json}");
        }
    }
}

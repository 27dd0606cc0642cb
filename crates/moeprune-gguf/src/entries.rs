//! The key-value pairs of a header.

use crate::{
    Error,
    value::{Value, ValueType, array_bytes},
};

/// The key-value pairs of a header, each with its bytes, in their order. No key is there twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) kind: ValueType,
    /// The value as it is stored. [`Value::of`] accepts it.
    pub(crate) bytes: Vec<u8>,
}

impl Entries {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The keys and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.0.iter().filter_map(|entry| Some((entry.key.as_str(), entry.value()?)))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key; `None` if it is not there.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.0.iter().find(|entry| entry.key == key)?.value()
    }

    /// A number of any integer type; `None` if the key is not there.
    ///
    /// # Errors
    /// If the value is of another type, or negative.
    pub fn number(&self, key: &str) -> Result<Option<u64>, Error> {
        self.read(key, "an integer that is not negative", Value::as_number)
    }

    /// A number with a fraction, or of any integer type; `None` if the key is not there.
    ///
    /// # Errors
    /// If the value is no number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, Error> {
        self.read(key, "a number", |value| match value {
            Value::F32(number) => Some(number.into()),
            Value::F64(number) => Some(number),
            Value::I8(number) => Some(number.into()),
            Value::I16(number) => Some(number.into()),
            Value::I32(number) => Some(number.into()),
            Value::I64(number) => Some(number as f64),
            other => other.as_number().map(|number| number as f64),
        })
    }

    /// Yes or no; `None` if the key is not there.
    ///
    /// # Errors
    /// If the value is of another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read(key, "a boolean", |value| match value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// A text; `None` if the key is not there.
    ///
    /// # Errors
    /// If the value is of another type or no UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.read(key, "a string in UTF-8", Value::as_text)
    }

    /// The numbers of an array of any integer type; `None` if the key is not there.
    ///
    /// # Errors
    /// If the value is of another type, or one is negative.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<u64>>, Error> {
        self.read(key, "an array of integers that are not negative", |value| match value {
            Value::Array(array) => array.iter().map(Value::as_number).collect(),
            _ => None,
        })
    }

    /// The texts of an array; `None` if the key is not there.
    ///
    /// # Errors
    /// If the value is of another type, or one is no UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Error> {
        self.read(key, "an array of strings in UTF-8", |value| match value {
            Value::Array(array) => array.iter().map(Value::as_text).collect(),
            _ => None,
        })
    }

    /// Replaces an integer, which keeps its type and its place.
    ///
    /// # Errors
    /// If the key is not there, its value is no integer, or its type has no such number.
    pub fn set(&mut self, key: &str, number: u64) -> Result<(), Error> {
        let entry = self.entry_mut(key)?;
        let value = Value::integer(entry.kind, number);
        let value = value.map_err(|reason| Error::key(key, reason))?;
        entry.bytes.clear();
        value.append_to(&mut entry.bytes);
        Ok(())
    }

    /// Replaces an array of integers, which keeps their type and its place, not their number.
    ///
    /// # Errors
    /// If the key is not there, its value is no array of integers, or their type has no such number.
    pub fn set_numbers(&mut self, key: &str, numbers: &[u64]) -> Result<(), Error> {
        let entry = self.entry_mut(key)?;
        let Some(Value::Array(array)) = entry.value() else {
            return Err(Error::key(key, format!("is {:?}, expected an array", entry.kind)));
        };
        let kind = array.kind();
        let values = numbers.iter().map(|&number| Value::integer(kind, number));
        let values = values.collect::<Result<Vec<_>, _>>().map_err(|e| Error::key(key, e))?;
        entry.bytes = array_bytes(key, kind, &values)?;
        Ok(())
    }

    /// Appends a key that is not there.
    ///
    /// # Errors
    /// If it is there.
    pub fn push(&mut self, key: &str, value: Value<'_>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        value.append_to(&mut bytes);
        self.append(key, value.kind(), bytes)
    }

    /// Appends a key that is not there, with an array.
    ///
    /// # Errors
    /// If it is there, or a value is of another type than `kind`.
    pub fn push_array(
        &mut self,
        key: &str,
        kind: ValueType,
        values: &[Value<'_>],
    ) -> Result<(), Error> {
        self.append(key, ValueType::Array, array_bytes(key, kind, values)?)
    }

    /// Removes a key, and returns whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|entry| entry.key != key);
        self.0.len() < before
    }

    /// Entries whose keys differ.
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        Self(entries)
    }

    /// Appends all of them as they are stored.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        for Entry { key, kind, bytes: value } in &self.0 {
            Value::String(key.as_bytes()).append_to(bytes);
            bytes.extend(kind.id().to_le_bytes());
            bytes.extend(value);
        }
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        of: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || Error::key(key, format!("is {}, expected {expected}", shown(value)));
        of(value).map(Some).ok_or_else(wrong)
    }

    fn entry_mut(&mut self, key: &str) -> Result<&mut Entry, Error> {
        let entry = self.0.iter_mut().find(|entry| entry.key == key);
        entry.ok_or_else(|| Error::key(key, "is not there, so it cannot be set"))
    }

    fn append(&mut self, key: &str, kind: ValueType, bytes: Vec<u8>) -> Result<(), Error> {
        if self.get(key).is_some() {
            return Err(Error::key(key, "is there already"));
        }
        self.0.push(Entry { key: key.to_owned(), kind, bytes });
        Ok(())
    }
}

impl Entry {
    fn value(&self) -> Option<Value<'_>> {
        Value::of(self.kind, &self.bytes)
    }
}

/// A value in a message.
fn shown(value: Value<'_>) -> String {
    match value {
        Value::String(text) => {
            let text: String = String::from_utf8_lossy(text).chars().take(40).collect();
            format!("the string {text:?}")
        }
        Value::Array(array) => format!("an array of {} {:?}", array.len(), array.kind()),
        other => format!("{other:?}"),
    }
}

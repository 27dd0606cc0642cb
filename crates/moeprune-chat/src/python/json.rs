//! `json.dumps`, which transformers puts in the place of Jinja's own `tojson`.

use std::fmt::Write;

use minijinja::{
    Error, State, Value,
    value::{DynObject, Kwargs, Rest, ValueKind},
};

use super::{MOST_DEEP, float, refuse};

/// `value|tojson(ensure_ascii, indent, separators, sort_keys)`
pub(crate) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        if let Some(value) = args.get(at) {
            return Ok(Some(value.clone()));
        }
        kwargs.get::<Option<Value>>(name)
    };
    let indent = match argument(1, "indent")?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(indent_of(&indent)?),
    };
    let (item, key) = match argument(2, "separators")?.filter(|pair| !pair.is_none()) {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => separators_of(&pair)?,
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let mut writer = Writer {
        out: String::new(),
        ensure_ascii: is_set(argument(0, "ensure_ascii")?),
        sort_keys: is_set(argument(3, "sort_keys")?),
        indent,
        item,
        key,
        charged: 0,
    };
    kwargs.assert_all_used()?;
    writer.value(state, value, 0)?;
    Ok(Value::from(writer.out))
}

fn indent_of(indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    let width = i64::try_from(indent.clone())?;
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    if width > 1000 {
        return Err(refuse("tojson: an indent of more than 1000"));
    }
    Ok(" ".repeat(width))
}

fn separators_of(pair: &Value) -> Result<(String, String), Error> {
    let both: Vec<Value> = pair.try_iter()?.checked().collect::<Result<_, _>>()?;
    match &both[..] {
        [item, key] => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.to_owned(), key.to_owned())),
            _ => Err(refuse("tojson: separators are two strings")),
        },
        _ => Err(refuse("tojson: separators are two strings")),
    }
}

struct Writer {
    out: String,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
    charged: usize,
}

impl Writer {
    fn value(&mut self, state: &State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MOST_DEEP {
            return Err(refuse(format!("tojson: a value is nested more than {MOST_DEEP} deep")));
        }
        self.charge(state)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(state, value, depth)?,
            ValueKind::Map => self.map(state, value, depth)?,
            kind => return Err(refuse(format!("tojson: a value of type {kind} is no JSON"))),
        }
        Ok(())
    }

    /// Pays for what was written since, before more is.
    fn charge(&mut self, state: &State<'_, '_>) -> Result<(), Error> {
        let steps = (self.out.len() - self.charged) / 16;
        self.charged += steps * 16;
        state.consume_fuel(steps as u64 + 1)
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            self.out.push_str(&value.to_string());
            return Ok(());
        }
        let number = f64::try_from(value.clone())?;
        self.out.push_str(&match number {
            _ if number.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            _ => float::repr(number),
        });
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.escape(u16::try_from(u32::from(character)).unwrap_or(0)),
                // `json.dumps` escapes DEL with `ensure_ascii` no more than without.
                '\u{80}'.. if self.ensure_ascii => {
                    let mut units = [0; 2];
                    for &mut unit in character.encode_utf16(&mut units) {
                        self.escape(unit);
                    }
                }
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u16) {
        write!(self.out, "\\u{unit:04x}").expect("strings take all that is written");
    }

    fn list(&mut self, state: &State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in value.try_iter()?.checked() {
            self.begin_item(empty, depth + 1);
            empty = false;
            self.value(state, &item?, depth + 1)?;
        }
        self.close(']', empty, depth);
        Ok(())
    }

    fn map(&mut self, state: &State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('{');
        let pairs = value.as_object().and_then(DynObject::try_iter_pairs);
        let mut pairs: Vec<(Value, Value)> = pairs.into_iter().flatten().collect();
        if self.sort_keys {
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        for (at, (key, item)) in pairs.iter().enumerate() {
            self.begin_item(at == 0, depth + 1);
            self.map_key(key)?;
            self.out.push_str(&self.key);
            self.value(state, item, depth + 1)?;
        }
        self.close('}', pairs.is_empty(), depth);
        Ok(())
    }

    fn map_key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::Number => {
                self.out.push('"');
                self.number(key)?;
                self.out.push('"');
            }
            ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
            ValueKind::None => self.string("null"),
            kind => return Err(refuse(format!("tojson: a key of type {kind}"))),
        }
        Ok(())
    }

    fn begin_item(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.item);
        }
        self.new_line(depth);
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }
}

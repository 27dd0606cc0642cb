//! Filters and tests that differ from Jinja's.

use std::fmt::Write;

use minijinja::{
    Environment, Error, State, Value, filters,
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs},
};

use super::{json, refuse, strings, text};

/// The widest line that a filter fills up.
const MOST_WIDE: usize = 10_000;

/// Puts Jinja's filters and tests in the place of the engine's, and takes away what Jinja does not
/// have.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    for name in ["bool", "chain", "lines", "split", "zip"] {
        environment.remove_filter(name);
    }
    for name in ["endingwith", "safe", "startingwith"] {
        environment.remove_test(name);
    }
    environment.remove_global("debug");
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |value: &Value| text::display(value));
    environment.add_filter("pprint", |value: &Value| text::represent(value));
    environment.add_filter("trim", trim);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("indent", indent);
    environment.add_filter("center", center);
    environment.add_filter("truncate", truncate);
    environment.add_filter("attr", attr);
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, escape);
    }
    environment.add_filter("wordcount", |value: &Value| {
        text::display(value)
            .map(|text| text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).count())
    });
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_sequence);
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
    });
    environment.add_test("callable", is_callable);
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

fn trim(state: &State<'_, '_>, value: &Value, chars: Option<String>) -> Result<String, Error> {
    let text = text::display(value)?;
    state.consume_fuel(text.len() as u64 / 64)?;
    Ok(strings::stripped(&text, chars.as_deref(), (true, true)).to_owned())
}

/// `value|default(other, boolean)`
fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let other = other.or(kwargs.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let boolean = boolean.or(kwargs.get("boolean")?).is_some_and(|flag| flag.is_true());
    kwargs.assert_all_used()?;
    let missing = value.is_undefined() || (boolean && !value.is_true());
    Ok(if missing { other } else { value.clone() })
}

/// `value|int(default, base)`: what is no number is the default.
fn int(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = default.or(kwargs.get("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(kwargs.get("base")?);
    filters::int(state, &spaceless(value), Some(default), base, kwargs)
}

/// `value|float(default)`
fn float(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = default.or(kwargs.get("default")?).unwrap_or_else(|| Value::from(0.0));
    filters::float(state, &spaceless(value), Some(default), kwargs)
}

fn spaceless(value: &Value) -> Value {
    value.as_str().map_or_else(
        || value.clone(),
        |text| Value::from(strings::stripped(text, None, (true, true))),
    )
}

/// `text|indent(width, first, blank)`
fn indent(
    state: &State<'_, '_>,
    value: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<String, Error> {
    let args: Vec<Value> = args.0.into_iter().map(ValueOrKwargs::into_value).collect();
    let (width, first, blank, kwargs): (Option<Value>, Option<bool>, Option<bool>, Kwargs) =
        minijinja::value::from_args(&args)?;
    let width = width.or(kwargs.get("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let indent = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(width_of(&width)?),
    };
    let text = text::display(value)?;
    let mut indented = String::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        state.consume_fuel(1 + (indent.len() + line.len()) as u64 / 64)?;
        indented.push_str(if at > 0 { "\n" } else { "" });
        if if at == 0 { first } else { blank || !line.is_empty() } {
            indented.push_str(&indent);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

fn width_of(value: &Value) -> Result<usize, Error> {
    let width = usize::try_from(i64::try_from(value.clone())?.max(0)).unwrap_or(usize::MAX);
    if width > MOST_WIDE {
        return Err(refuse(format!("a width of more than {MOST_WIDE}")));
    }
    Ok(width)
}

fn center(value: &Value, width: Option<Value>) -> Result<String, Error> {
    let width = width.map_or(Ok(80), |width| width_of(&width))?;
    let text = text::display(value)?;
    let missing = width.saturating_sub(text.chars().count());
    let left = missing / 2 + (missing & width & 1);
    let mut centered = String::new();
    write!(centered, "{:left$}{text}{:right$}", "", "", right = missing - left)?;
    Ok(centered)
}

/// `text|truncate(length, killwords, end, leeway)`
fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args: Vec<Value> = args.0.into_iter().map(ValueOrKwargs::into_value).collect();
    let (length, kill, end, leeway, kwargs): (
        Option<usize>,
        Option<bool>,
        Option<String>,
        Option<usize>,
        Kwargs,
    ) = minijinja::value::from_args(&args)?;
    let length = length.or(kwargs.get("length")?).unwrap_or(255);
    let kill = kill.or(kwargs.get("killwords")?).unwrap_or(false);
    let end = end.or(kwargs.get("end")?).unwrap_or_else(|| "...".to_owned());
    let leeway = leeway.or(kwargs.get("leeway")?).unwrap_or(5);
    kwargs.assert_all_used()?;
    let text = text::display(value)?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| refuse("truncate: the end is longer than the length"))?;
    let cut: String = text.chars().take(kept).collect();
    let words = if kill { None } else { cut.rsplit_once(' ').map(|(before, _)| before) };
    Ok(format!("{}{end}", words.unwrap_or(&cut)))
}

fn escape(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let text = text::display(value)?;
    state.consume_fuel(text.len() as u64 / 16)?;
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(escaped.replace('"', "&#34;").replace('\'', "&#39;"))
}

/// An attribute, and no item.
fn attr(value: &Value, name: &str) -> Value {
    let attribute = value.as_object().and_then(|object| object.get_value_by_str(name));
    attribute
        .filter(|_| value.kind() != ValueKind::Map || is_method(value, name))
        .unwrap_or_default()
}

fn is_method(value: &Value, name: &str) -> bool {
    let attribute = value.as_object().and_then(|object| object.get_value_by_str(name));
    attribute.is_some_and(|attribute| attribute.kind() == ValueKind::Plain)
}

/// What has a length and items, as Jinja finds out: strings and dictionaries too.
fn is_sequence(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Iterable | Map | Seq | String | Undefined)
}

fn is_callable(value: &Value) -> bool {
    let of_engine = |object: &minijinja::value::DynObject| {
        object.type_name().ends_with("::Macro") || object.type_name().contains("Function")
    };
    value.kind() == ValueKind::Plain || value.as_object().is_some_and(of_engine)
}

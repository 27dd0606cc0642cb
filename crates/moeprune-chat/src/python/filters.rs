//! Filters and tests that differ from Jinja's.

use minijinja::{Environment, Error, State, Value, value::ValueKind};

use super::{json, strings, text};

/// Puts Jinja's filters and tests in the place of the engine's, and takes away what Jinja does not
/// have.
pub(crate) fn add_to(environment: &mut Environment<'static>) {
    for name in ["bool", "chain", "lines", "split", "zip"] {
        environment.remove_filter(name);
    }
    for name in ["endingwith", "safe", "startingwith"] {
        environment.remove_test(name);
    }
    environment.remove_global("debug");
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |value: &Value| text::display(value));
    environment.add_filter("trim", trim);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
    });
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

fn trim(state: &State<'_, '_>, value: &Value, chars: Option<String>) -> Result<String, Error> {
    let text = text::display(value)?;
    state.consume_fuel(text.len() as u64 / 64)?;
    Ok(strings::stripped(&text, chars.as_deref(), (true, true)).to_owned())
}

/// What has a length and items, as Jinja finds out: strings and dictionaries too.
fn is_sequence(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Iterable | Map | Seq | String | Undefined)
}

fn is_iterable(value: &Value) -> bool {
    is_sequence(value)
}

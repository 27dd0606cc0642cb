//! What Python and Jinja2 do otherwise than the engine: how values are written, methods of strings,
//! lists and dictionaries, filters and tests.

pub(crate) mod budget;
mod dict;
mod filters;
mod float;
mod held;
mod json;
mod list;
mod methods;
mod moment;
mod sequence;
mod strings;
mod text;

pub use self::moment::Moment;
pub(crate) use self::{
    held::from_json,
    methods::unknown_method,
    text::{display, write_display},
};

/// The deepest value that there may be. Python writes them up to a depth of about a thousand.
pub(crate) const MOST_DEEP: usize = 200;

/// An error with a reason.
pub(crate) fn refuse(reason: impl Into<std::borrow::Cow<'static, str>>) -> minijinja::Error {
    minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, reason)
}

/// What Python's `str.isspace` says of a character: what Unicode calls white space, and four
/// separators of ASCII.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Puts Python's and Jinja's functions, filters and tests into an environment.
pub(crate) fn add_to(environment: &mut minijinja::Environment<'static>) {
    filters::add_to(environment);
    held::add_to(environment);
}

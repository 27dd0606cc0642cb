//! What Python and Jinja2 do otherwise than the engine: how values are written, methods of strings,
//! lists and dictionaries, filters and tests.

mod dict;
mod filters;
mod float;
mod json;
mod methods;
mod moment;
mod strings;
mod text;

pub use self::moment::Moment;
pub(crate) use self::{
    dict::from_json,
    filters::add_to,
    methods::unknown_method,
    text::{display, write_display},
};

/// The deepest value that is written. Python gives up at about a thousand.
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

//! The templates and expressions of a task, in Jinja.

use std::collections::{BTreeSet, HashSet};

use minijinja::{Environment, UndefinedBehavior, Value, syntax::SyntaxConfig};

use super::python;

/// Steps of one rendering at most: a task's file may come from anywhere.
const STEPS: u64 = 1_000_000;

/// How deep macros and loops may call each other.
const MOST_CALLS: usize = 200;

/// A text with places for fields of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(String);

/// What is computed from fields of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression(String);

/// Jinja as the harness sets it up: names that are not there are errors, line breaks at the end stay.
#[derive(Clone)]
pub(super) struct Jinja(Environment<'static>);

impl std::fmt::Debug for Jinja {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jinja").finish_non_exhaustive()
    }
}

impl Jinja {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut syntax = SyntaxConfig::builder();
        syntax.keep_trailing_newline(true);
        let syntax = syntax.build().expect("the delimiters are Jinja's");
        environment.set_syntax(syntax);
        environment.set_fuel(Some(STEPS));
        environment.set_recursion_limit(MOST_CALLS);
        python::extend(&mut environment);
        Self(environment)
    }

    /// Checks a template's syntax; adds the fields that it reads.
    pub(super) fn template(
        &self,
        source: &str,
        reads: &mut BTreeSet<String>,
    ) -> Result<Template, String> {
        let template = self.0.template_from_str(source).map_err(|error| reason(&error))?;
        self.add(template.undeclared_variables(false), reads);
        Ok(Template(source.to_owned()))
    }

    /// Checks an expression's syntax; adds the fields that it reads.
    pub(super) fn expression(
        &self,
        source: &str,
        reads: &mut BTreeSet<String>,
    ) -> Result<Expression, String> {
        let expression = self.0.compile_expression(source).map_err(|error| reason(&error))?;
        self.add(expression.undeclared_variables(false), reads);
        Ok(Expression(source.to_owned()))
    }

    /// Adds names that are not the engine's own.
    fn add(&self, names: HashSet<String>, reads: &mut BTreeSet<String>) {
        let own: HashSet<&str> = self.0.globals().map(|(name, _)| name).collect();
        reads.extend(names.into_iter().filter(|name| !own.contains(name.as_str())));
    }

    pub(super) fn render(
        &self,
        Template(source): &Template,
        fields: &Value,
    ) -> Result<String, String> {
        let rendered =
            self.0.template_from_str(source).and_then(|template| template.render(fields));
        rendered.map_err(|error| reason(&error))
    }

    pub(super) fn evaluate(
        &self,
        Expression(source): &Expression,
        fields: &Value,
    ) -> Result<Value, String> {
        let found =
            self.0.compile_expression(source).and_then(|expression| expression.eval(fields));
        match found {
            Ok(value) if value.is_undefined() => Err(format!("`{source}` is not there")),
            found => found.map_err(|error| reason(&error)),
        }
    }
}

/// What the engine says, without the place, and what it says is behind it.
fn reason(error: &minijinja::Error) -> String {
    let mut reason = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(source) = std::error::Error::source(error) {
        reason.push_str(&format!(": {source}"));
    }
    reason
}

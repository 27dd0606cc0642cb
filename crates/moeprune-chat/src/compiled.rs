//! One template, compiled.

use std::{error::Error as _, fmt, io, sync::Arc};

use minijinja::{Environment, ErrorKind, Value, syntax::SyntaxConfig};

use crate::{
    Error, Limits, Moment,
    files::Source,
    python::{self, budget, display},
    source::{self, Problem},
};

/// The name by which the engine knows the template.
const NAME: &str = "template";
/// How many items of lists and dictionaries may be visited for each step.
const VISITS: u64 = 1;
/// How deep macros, blocks and loops may call each other; a macro counts for several.
const MOST_CALLS: usize = 200;

/// A template that can be rendered.
#[derive(Clone)]
pub(crate) struct Compiled {
    title: Arc<str>,
    environment: Environment<'static>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").field("title", &self.title).finish_non_exhaustive()
    }
}

/// What a rendering is given: variables by name, and how many bytes they are made of.
pub(crate) struct Variables {
    pub(crate) values: Vec<(String, Value)>,
    pub(crate) bytes: u64,
}

/// The words of `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

impl Compiled {
    pub(crate) fn new(source: Source, limits: &Limits) -> Result<Self, Error> {
        let Source { title, text } = source;
        if text.len() > limits.template {
            let (bytes, most) = (text.len(), limits.template);
            return Err(Error::TooLong { template: title, bytes, most });
        }
        let prepared = source::prepare(&text).map_err(|Problem { line, reason }| {
            Error::Syntax { template: title.clone(), line, reason }
        })?;
        let mut environment = environment();
        let added = environment.add_template_owned(NAME, prepared);
        added.map_err(|error| Error::Syntax {
            template: title.clone(),
            line: error.line().unwrap_or(1),
            reason: reason(&error),
        })?;
        Ok(Self { title: title.into(), environment })
    }

    /// Whether a variable of this name is used.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        let template = self.environment.get_template(NAME);
        template.is_ok_and(|template| template.undeclared_variables(false).contains(name))
    }

    pub(crate) fn render(
        &self,
        variables: Variables,
        moment: Moment,
        limits: &Limits,
    ) -> Result<String, Error> {
        let per_bytes = (variables.bytes / 64).saturating_mul(limits.steps_per_64_bytes);
        let fuel = limits.steps.saturating_add(per_bytes);
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        environment.add_function("strftime_now", move |format: &str| moment.strftime(format));
        let mut output = Output { text: Vec::new(), most: limits.output, full: false };
        let context = Value::from_pairs(variables.values);
        let rendered = budget::within(fuel.saturating_mul(VISITS), || {
            let template = environment.get_template(NAME)?;
            template.render_captured_to(context, &mut output).map(drop)
        });
        let Some(rendered) = rendered else {
            return Err(Error::OutOfFuel { template: self.title(), line: 1, fuel });
        };
        match rendered {
            Ok(()) => String::from_utf8(output.text)
                .map_err(|_| self.render_error(1, "text that is no UTF-8".to_owned())),
            Err(_) if output.full => {
                Err(Error::OutputTooLong { template: self.title(), most: limits.output })
            }
            Err(error) => Err(self.explained(&error, fuel)),
        }
    }

    fn title(&self) -> String {
        self.title.to_string()
    }

    fn render_error(&self, line: usize, reason: String) -> Error {
        Error::Render { template: self.title(), line, reason }
    }

    fn explained(&self, error: &minijinja::Error, fuel: u64) -> Error {
        let line = error.line().unwrap_or(1);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(inner) = cause {
            if let Some(Raised(message)) = inner.downcast_ref() {
                let message = message.clone();
                return Error::Refused { template: self.title(), line, message };
            }
            let engine = inner.downcast_ref::<minijinja::Error>();
            if engine.is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
                return Error::OutOfFuel { template: self.title(), line, fuel };
            }
            cause = inner.source();
        }
        self.render_error(line, reason(error))
    }
}

/// What the engine says, without the place.
fn reason(error: &minijinja::Error) -> String {
    let mut reason = match (error.kind(), error.detail()) {
        (ErrorKind::SyntaxError | ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    if let Some(cause) = error.source() {
        reason.push_str(&format!(": {cause}"));
    }
    reason
}

/// Jinja as transformers sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the marks are Jinja's own"));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_recursion_limit(MOST_CALLS);
    environment.set_unknown_method_callback(python::unknown_method);
    environment.set_formatter(|out, _, value| python::write_display(out, value));
    python::add_to(&mut environment);
    environment.add_function("raise_exception", |message: &Value| {
        let message = display(message)?;
        let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
        Err::<Value, _>(error.with_source(Raised(message)))
    });
    environment
}

/// Text up to a length.
struct Output {
    text: Vec<u8>,
    most: usize,
    full: bool,
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most - self.text.len() {
            self.full = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Templates, and rendering them.

use std::collections::BTreeMap;

use crate::{
    Chat, Error, Limits, Moment, SpecialTokens, TemplateFiles,
    compiled::Compiled,
    files::{self, DEFAULT, Source, TOOL_USE},
    messages,
};

/// A model's chat template, or several by name.
///
/// See the [crate's documentation](crate) for an example, and for what is rendered differently from transformers.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    templates: BTreeMap<String, Compiled>,
    special: SpecialTokens,
    limits: Limits,
    moment: Moment,
}

impl ChatTemplate {
    /// A template by itself.
    ///
    /// # Errors
    /// A source that is no template, or is too long.
    pub fn new(template: &str, special: &SpecialTokens) -> Result<Self, Error> {
        let source = Source { title: "the chat template".to_owned(), text: template.to_owned() };
        Self::of_sources(BTreeMap::from([(DEFAULT.to_owned(), source)]), special.clone())
    }

    /// The template in a model's files, with the special tokens in them; `None` if they have none.
    /// [`ChatTemplate::of`] takes further files.
    ///
    /// # Errors
    /// Files that are not what their names say, and as of [`ChatTemplate::new`].
    pub fn of_files(
        tokenizer_config: Option<&[u8]>,
        chat_template_jinja: Option<&[u8]>,
    ) -> Result<Option<Self>, Error> {
        let additional = BTreeMap::new();
        Self::of(&TemplateFiles { tokenizer_config, chat_template_jinja, additional })
    }

    /// The templates in a model's files, with the special tokens in them; `None` if they have none.
    ///
    /// # Errors
    /// As of [`ChatTemplate::of_files`].
    pub fn of(files: &TemplateFiles<'_>) -> Result<Option<Self>, Error> {
        let (sources, special) = files::read(files)?;
        if sources.is_empty() {
            return Ok(None);
        }
        Self::of_sources(sources, special).map(Some)
    }

    fn of_sources(
        sources: BTreeMap<String, Source>,
        special: SpecialTokens,
    ) -> Result<Self, Error> {
        let limits = Limits::default();
        let mut templates = BTreeMap::new();
        for (name, source) in sources {
            templates.insert(name, Compiled::new(source, &limits)?);
        }
        Ok(Self { templates, special, limits, moment: Moment::FIXED })
    }

    /// The same with another moment for `strftime_now`.
    #[must_use]
    pub fn at(self, moment: Moment) -> Self {
        Self { moment, ..self }
    }

    /// The same with other limits. That of a template's length holds from when it was read.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The names of the templates, sorted. One that is alone is named `default`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(String::as_str)
    }

    /// The special tokens that templates see.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// Whether the template that [`render`](Self::render) would use for a conversation with tools names them at all.
    pub fn takes_tools(&self) -> bool {
        self.chosen(true).is_ok_and(|template| template.mentions("tools"))
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// No messages, messages that the template refuses or cannot be rendered with, and a template
    /// that goes beyond the limits.
    pub fn render(&self, chat: &Chat<'_>) -> Result<String, Error> {
        self.render_with(self.chosen(chat.tools.is_some())?, chat)
    }

    /// The text of a conversation by the template of a name (`rag`).
    ///
    /// # Errors
    /// No such template, and as of [`ChatTemplate::render`].
    pub fn render_named(&self, name: &str, chat: &Chat<'_>) -> Result<String, Error> {
        let template = self.templates.get(name).ok_or_else(|| Error::NoSuchTemplate {
            name: name.to_owned(),
            names: self.names().map(str::to_owned).collect(),
        })?;
        self.render_with(template, chat)
    }

    fn chosen(&self, with_tools: bool) -> Result<&Compiled, Error> {
        let for_tools = self.templates.get(TOOL_USE).filter(|_| with_tools);
        for_tools
            .or_else(|| self.templates.get(DEFAULT))
            .ok_or_else(|| Error::NoDefault { names: self.names().map(str::to_owned).collect() })
    }

    fn render_with(&self, template: &Compiled, chat: &Chat<'_>) -> Result<String, Error> {
        let variables = messages::variables(chat, &self.special)?;
        template.render(variables, self.moment, &self.limits)
    }
}

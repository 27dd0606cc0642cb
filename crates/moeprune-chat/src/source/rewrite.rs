//! Tags and expressions with containers made by functions.

use super::{
    code::{Kind, Token, partners},
    strings,
};

/// Functions that templates are made to call. A template may not use such names itself.
pub(crate) mod names {
    /// What all of them begin with.
    pub(crate) const RESERVED: &str = "__chat_";
    /// Makes a list of its arguments.
    pub(crate) const LIST: &str = "__chat_list";
    /// Makes a tuple of its arguments.
    pub(crate) const TUPLE: &str = "__chat_tuple";
    /// Makes a dictionary of its arguments, each key followed by its item.
    pub(crate) const DICT: &str = "__chat_dict";
    /// What is put into a variable.
    pub(crate) const HELD: &str = "__chat_held";
    /// What is put into a namespace.
    pub(crate) const KEPT: &str = "__chat_kept";
    /// What is iterated over.
    pub(crate) const EACH: &str = "__chat_each";
}

/// Words after which an expression begins.
const OPERATORS: [&str; 7] = ["in", "not", "and", "or", "is", "if", "else"];

struct Code<'a> {
    tokens: &'a [Token<'a>],
    partners: Vec<usize>,
}

/// Writes an expression. Nothing is to follow it.
pub(super) fn output(tokens: &[Token<'_>], out: &mut String) -> Vec<String> {
    let code = Code { tokens, partners: partners(tokens) };
    code.expression(0, tokens.len(), out);
    Vec::new()
}

/// Writes a tag, and returns the variables that it makes without passing them through a function.
pub(super) fn tag(tokens: &[Token<'_>], out: &mut String) -> Vec<String> {
    let code = Code { tokens, partners: partners(tokens) };
    let Some(name) = tokens.first() else { return Vec::new() };
    out.push_str(name.space);
    let alone = tokens[1..].iter().all(|token| token.text.is_empty());
    match name.text {
        "generation" if alone => out.push_str("with"),
        "endgeneration" if alone => out.push_str("endwith"),
        text => out.push_str(text),
    }
    let end = tokens.len();
    match name.text {
        "set" => code.assignment(1, end, out),
        "with" => code.assignments(1, end, out),
        "for" => code.iteration(out),
        "macro" | "call" => {
            code.call_head(out);
            return code.parameters();
        }
        _ => code.expression(1, end, out),
    }
    Vec::new()
}

impl Code<'_> {
    /// Places of a sign or word that are in no bracket opened after `start`.
    fn top_level(&self, start: usize, end: usize, text: &str) -> Vec<usize> {
        let mut places = Vec::new();
        let mut at = start;
        while at < end {
            if self.tokens[at].text == text {
                places.push(at);
            }
            at = self.partners[at].max(at) + 1;
        }
        places
    }

    /// Writes tokens as they are.
    fn copy(&self, start: usize, end: usize, out: &mut String) {
        for token in &self.tokens[start..end] {
            out.push_str(token.space);
            out.push_str(token.text);
        }
    }

    /// `target = value`, or the head of a block.
    fn assignment(&self, start: usize, end: usize, out: &mut String) {
        let Some(&equals) = self.top_level(start, end, "=").first() else {
            return self.expression(start, end, out);
        };
        self.copy(start, equals + 1, out);
        let attribute = self.tokens[start..equals].iter().any(|token| token.text == ".");
        out.push_str(if attribute { names::KEPT } else { names::HELD });
        out.push('(');
        self.perhaps_tuple(equals + 1, end, out);
        out.push(')');
    }

    /// `a = 1, b = 2`
    fn assignments(&self, start: usize, end: usize, out: &mut String) {
        let mut begin = start;
        for comma in self.top_level(start, end, ",").into_iter().chain([end]) {
            self.assignment(begin, comma, out);
            if comma < end {
                self.copy(comma, comma + 1, out);
            }
            begin = comma + 1;
        }
    }

    /// `for target in iterable if condition recursive`
    fn iteration(&self, out: &mut String) {
        let end = self.tokens.len();
        let Some(&within) = self.top_level(1, end, "in").first() else {
            return self.expression(1, end, out);
        };
        let words = ["if", "recursive"].map(|word| {
            let places = self.top_level(within + 1, end, word);
            places.into_iter().find(|&at| self.tokens[at - 1].text != ".").unwrap_or(end)
        });
        let stop = words[0].min(words[1]);
        self.copy(1, within + 1, out);
        out.push(' ');
        out.push_str(names::EACH);
        out.push('(');
        self.perhaps_tuple(within + 1, stop, out);
        out.push(')');
        out.push_str(if stop < end { " " } else { "" });
        self.expression(stop, end, out);
    }

    /// The head of a macro or a call block, whose first bracket is one of parameters.
    fn call_head(&self, out: &mut String) {
        let opening = self.tokens.iter().position(|token| token.text == "(");
        let Some(open) = opening.filter(|&at| at <= 2) else {
            return self.expression(1, self.tokens.len(), out);
        };
        let close = self.partners[open].max(open);
        self.copy(1, open + 1, out);
        self.expression(open + 1, close.max(open + 1), out);
        self.expression(close.max(open + 1), self.tokens.len(), out);
    }

    /// The parameters of a macro or a call block.
    fn parameters(&self) -> Vec<String> {
        let opening = self.tokens.iter().position(|token| token.text == "(");
        let Some(open) = opening.filter(|&at| at <= 2) else { return Vec::new() };
        let close = self.partners[open];
        let mut starts = vec![open];
        starts.extend(self.top_level(open + 1, close.max(open + 1), ","));
        let parameters = starts.into_iter().filter_map(|at| self.tokens.get(at + 1));
        let names = parameters.filter(|token| token.kind == Kind::Name);
        names.map(|token| token.text.to_owned()).collect()
    }

    /// An expression that is a tuple if it has commas.
    fn perhaps_tuple(&self, start: usize, end: usize, out: &mut String) {
        if self.top_level(start, end, ",").is_empty() {
            return self.expression(start, end, out);
        }
        out.push_str(names::TUPLE);
        out.push('(');
        self.expression(start, end, out);
        out.push(')');
    }

    fn expression(&self, start: usize, end: usize, out: &mut String) {
        let mut at = start;
        while at < end {
            let token = self.tokens[at];
            let partner = self.partners[at];
            out.push_str(token.space);
            if token.kind == Kind::Open && partner > at && partner < end {
                self.bracket(start, at, partner, out);
                at = partner + 1;
                continue;
            }
            // A sign that changes nothing, and that the engine does not know.
            if token.kind == Kind::Literal {
                strings::literal(token.text, out);
            } else if token.text != "+" || self.ends_operand(start, at) {
                out.push_str(token.text);
            }
            at += 1;
        }
    }

    fn bracket(&self, start: usize, open: usize, close: usize, out: &mut String) {
        let after_operand = self.ends_operand(start, open);
        let after_test = self.is_name_of_test(start, open);
        let commas = !self.top_level(open + 1, close, ",").is_empty();
        let function = match self.tokens[open].text {
            "[" if !after_operand || after_test => names::LIST,
            "{" => names::DICT,
            "(" if !after_operand && (commas || close == open + 1) => names::TUPLE,
            _ => {
                out.push_str(self.tokens[open].text);
                self.expression(open + 1, close, out);
                out.push_str(self.tokens[close].space);
                return out.push_str(self.tokens[close].text);
            }
        };
        out.push('(');
        out.push_str(function);
        out.push('(');
        if function == names::DICT {
            self.pairs(open + 1, close, out);
        } else {
            self.expression(open + 1, close, out);
        }
        out.push_str(self.tokens[close].space);
        out.push_str("))");
    }

    /// `key: item, key: item` as arguments.
    fn pairs(&self, start: usize, end: usize, out: &mut String) {
        let mut begin = start;
        for colon in self.top_level(start, end, ":").into_iter().chain([end]) {
            self.expression(begin, colon, out);
            out.push_str(if colon < end { "," } else { "" });
            begin = colon + 1;
        }
    }

    /// Whether what is before a token is something that can be called, indexed or added to.
    fn ends_operand(&self, start: usize, at: usize) -> bool {
        if at <= start {
            return false;
        }
        let before = self.tokens[at - 1];
        match before.kind {
            Kind::Literal | Kind::Close => true,
            Kind::Open | Kind::Sign => false,
            Kind::Name => {
                let attribute = at >= start + 2 && self.tokens[at - 2].text == ".";
                attribute || !OPERATORS.contains(&before.text)
            }
        }
    }

    /// Whether what is before a token is the name of a test (`x is name`).
    fn is_name_of_test(&self, start: usize, at: usize) -> bool {
        let word = |back: usize| {
            let place = at.checked_sub(back).filter(|place| *place >= start);
            place.map(|place| self.tokens[place].text)
        };
        word(2) == Some("is") || (word(2) == Some("not") && word(3) == Some("is"))
    }
}

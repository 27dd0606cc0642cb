//! Files hold one idea, functions fit on a screen, and parameter lists are short.

use syn::{
    spanned::Spanned as _,
    visit::{self, Visit},
};

use crate::sources::{Source, crates, is_for_tests};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;
const PARAMETERS: usize = 5;

/// Crates whose longest parameter list is still longer. These numbers only become smaller.
const STILL_LONGER: [(&str, usize); 2] = [("moeprune-model", 6), ("moeprune-score", 8)];

#[test]
fn files_are_of_one_idea() {
    let sources = crates().into_iter().flat_map(|package| package.sources());
    let long: Vec<String> = sources
        .filter(|source| source.text.lines().count() > FILE_LINES)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "more than {FILE_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn functions_fit_on_a_screen() {
    let long: Vec<String> = functions()
        .iter()
        .filter(|function| function.lines > FUNCTION_LINES)
        .map(|function| format!("{}: {} lines", function.place, function.lines))
        .collect();
    assert!(long.is_empty(), "more than {FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn parameter_lists_are_short() {
    let long: Vec<String> = functions()
        .iter()
        .filter(|function| {
            let longer = STILL_LONGER.iter().find(|(name, _)| *name == function.package);
            function.parameters > longer.map_or(PARAMETERS, |(_, most)| *most)
        })
        .map(|function| format!("{}: {} parameters", function.place, function.parameters))
        .collect();
    assert!(long.is_empty(), "more than {PARAMETERS} parameters:\n{}", long.join("\n"));
}

struct Function {
    package: String,
    /// File, line and name.
    place: String,
    lines: usize,
    /// `self` is not counted.
    parameters: usize,
}

fn functions() -> Vec<Function> {
    let mut found = Vec::new();
    for package in crates() {
        for source in package.sources() {
            let mut counter =
                Counter { package: &package.name, source: &source, found: &mut found };
            counter.visit_file(&source.syntax);
        }
    }
    assert!(found.len() > 1000, "{} functions", found.len());
    found
}

struct Counter<'a> {
    package: &'a str,
    source: &'a Source,
    found: &'a mut Vec<Function>,
}

impl Counter<'_> {
    fn count(&mut self, signature: &syn::Signature, body: proc_macro2::Span) {
        let first = signature.span().start().line;
        let own = |input: &&syn::FnArg| matches!(input, syn::FnArg::Typed(_));
        self.found.push(Function {
            package: self.package.to_owned(),
            place: format!("{}:{first} {}", self.source.path, signature.ident),
            lines: body.end().line + 1 - first,
            parameters: signature.inputs.iter().filter(own).count(),
        });
    }
}

impl<'ast> Visit<'ast> for Counter<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.count(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.count(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }
}

//! Files hold one idea, functions fit on a screen, and parameter lists are short.

use std::{fs, path::PathBuf};

use syn::{
    spanned::Spanned as _,
    visit::{self, Visit},
};

use crate::sources::{Source, is_for_tests, packages, root, rust_files};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;
const PARAMETERS: usize = 5;

/// Packages whose longest parameter list is still longer, and how long it is. These numbers only become smaller.
const STILL_LONGER: [(&str, usize); 2] = [("moeprune-model", 6), ("moeprune-score", 8)];

#[test]
fn files_are_of_one_idea() {
    let folders = ["crates", "examples", "tests", "xtask"];
    let paths: Vec<PathBuf> =
        folders.iter().flat_map(|folder| rust_files(&root().join(folder))).collect();
    assert!(paths.len() > 400, "{} files", paths.len());
    let long: Vec<String> = paths
        .iter()
        .map(|path| (path, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
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
        .filter(|function| function.parameters > most_parameters(&function.package))
        .map(|function| format!("{}: {} parameters", function.place, function.parameters))
        .collect();
    assert!(long.is_empty(), "more than {PARAMETERS} parameters:\n{}", long.join("\n"));
}

fn most_parameters(package: &str) -> usize {
    let longer = STILL_LONGER.iter().find(|(name, _)| *name == package);
    longer.map_or(PARAMETERS, |(_, most)| *most)
}

#[test]
fn what_is_still_longer_is_needed() {
    let functions = functions();
    for (package, most) in STILL_LONGER {
        let of = functions.iter().filter(|function| function.package == package);
        let longest = of.map(|function| function.parameters).max();
        assert_eq!(
            longest,
            Some(most),
            "{package}: lower the number in STILL_LONGER, or remove it"
        );
        assert!(most > PARAMETERS, "{package}: remove it from STILL_LONGER");
    }
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
    for package in packages() {
        for source in package.sources() {
            let mut counter = Counter {
                package: &package.name,
                source: &source,
                found: &mut found,
                of_trait: false,
            };
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
    /// Whether what is visited implements a trait.
    of_trait: bool,
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

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let outer = std::mem::replace(&mut self.of_trait, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.of_trait = outer;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.count(&item.sig, item.block.span());
        if self.of_trait
            && let Some(function) = self.found.last_mut()
        {
            // The trait decides; one of ours is counted where it is declared.
            function.parameters = 0;
        }
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let body = item.default.as_ref().map_or_else(|| item.sig.span(), |body| body.span());
        self.count(&item.sig, body);
        visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn methods_of_traits_are_counted() {
    let text = "trait T {\nfn a(&self, x: u8, y: u8) {\n}\nfn b(x: u8);\n}\nfn c() {}
impl T for X { fn b(x: u8) {} }";
    let syntax = syn::parse_file(text).unwrap();
    let source = Source { path: "a.rs".into(), module: Vec::new(), syntax };
    let mut found = Vec::new();
    Counter { package: "a", source: &source, found: &mut found, of_trait: false }
        .visit_file(&source.syntax);
    let found: Vec<_> = found.iter().map(|f| (&*f.place, f.lines, f.parameters)).collect();
    assert_eq!(
        found,
        [("a.rs:2 a", 2, 2), ("a.rs:4 b", 1, 1), ("a.rs:6 c", 1, 0), ("a.rs:7 b", 1, 0)]
    );
}

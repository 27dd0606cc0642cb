//! Which items of a file are tests.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// Names of the items that the test runner runs: functions under `#[test]`, those in `proptest!`, and items whose documentation
/// has an example that is compiled and run.
pub(crate) fn tests_of(text: &str) -> syn::Result<BTreeSet<String>> {
    let mut found = Found::default();
    found.visit_file(&syn::parse_file(text)?);
    Ok(found.0)
}

#[derive(Default)]
struct Found(BTreeSet<String>);

impl Found {
    fn item(&mut self, attributes: &[syn::Attribute], name: &syn::Ident) {
        let is_test = attributes.iter().any(|attribute| attribute.path().is_ident("test"));
        if is_test || has_example(attributes) {
            self.0.insert(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.item(&item.attrs, &item.sig.ident);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.item(&item.attrs, &item.sig.ident);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.item(&item.attrs, &item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.item(&item.attrs, &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.item(&item.attrs, &item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        if called.path.segments.last().is_some_and(|segment| segment.ident == "proptest") {
            properties(called.tokens.clone(), &mut self.0);
        }
    }
}

/// Functions under `#[test]` among the tokens of `proptest!`, whose parameters (`x in strategy`) are not Rust's.
fn properties(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let (mut is_test, mut after_fn) = (false, false);
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                is_test |= group.stream().to_string() == "test";
            }
            TokenTree::Ident(name) if after_fn => {
                if is_test {
                    found.insert(name.to_string());
                }
                (is_test, after_fn) = (false, false);
            }
            TokenTree::Ident(word) => after_fn = word == "fn",
            _ => {}
        }
    }
}

/// Whether documentation has a code block that is run: of Rust, neither ignored nor only compiled.
fn has_example(attributes: &[syn::Attribute]) -> bool {
    let lines = attributes.iter().filter_map(|attribute| {
        let syn::Meta::NameValue(meta) = &attribute.meta else { return None };
        let syn::Expr::Lit(value) = &meta.value else { return None };
        let syn::Lit::Str(line) = &value.lit else { return None };
        meta.path.is_ident("doc").then(|| line.value())
    });
    let mut inside = false;
    for line in lines {
        let Some(language) = line.trim().strip_prefix("```") else { continue };
        if !inside && ["", "rust"].contains(&language) {
            return true;
        }
        inside = !inside;
    }
    false
}

#[test]
fn tests_are_told_from_other_items() {
    let check = |text: &str, expected: &[&str]| {
        let found = tests_of(text).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{text}");
    };
    check("#[test] fn a() {} fn b() {}", &["a"]);
    check("mod tests { #[test] fn a() {} fn check() {} }", &["a"]);
    check("// #[test] fn a()\nconst B: &str = \"fn a() {}\";", &[]);
    check(
        "proptest! { #![proptest_config(x)] #[test] fn a(x in 0..9) {} fn b(x in 0..9) {} }",
        &["a"],
    );
    check("/// ```\n/// run();\n/// ```\npub fn a() {}", &["a"]);
    check("/// ```no_run\n/// run();\n/// ```\npub fn a() {}", &[]);
    check("/// ```text\n/// run();\n/// ```\npub struct A;", &[]);
}

//! What a crate's code may not contain: other crates' work.

use syn::visit::{self, Visit};

use crate::sources::{crates, is_for_tests};

/// Paths and string literals of a crate's code, tests apart, each with its file and line.
#[derive(Default)]
struct Contents {
    paths: Vec<(String, String)>,
    literals: Vec<(String, String)>,
    /// Names in signatures of public functions.
    signatures: Vec<(String, String)>,
}

struct Reader<'a> {
    file: &'a str,
    into: &'a mut Contents,
}

fn contents(name: &str) -> Contents {
    let package = crates().into_iter().find(|package| package.name == name).unwrap();
    let mut into = Contents::default();
    for source in package.sources() {
        Reader { file: &source.path, into: &mut into }.visit_file(&source.syntax);
    }
    assert!(!into.paths.is_empty(), "{name}");
    into
}

impl Reader<'_> {
    fn at(&self, span: proc_macro2::Span) -> String {
        format!("{}:{}", self.file, span.start().line)
    }

    fn signature(&mut self, visibility: &syn::Visibility, signature: &syn::Signature) {
        if matches!(visibility, syn::Visibility::Public(_)) {
            let mut types = Types(signature.ident.to_string());
            types.visit_signature(signature);
            let place = self.at(signature.ident.span());
            self.into.signatures.push((types.0, place));
        }
    }

    fn import(&mut self, tree: &syn::UseTree, before: &str) {
        match tree {
            syn::UseTree::Path(path) => {
                self.import(&path.tree, &format!("{before}{}::", path.ident));
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, before));
            }
            syn::UseTree::Name(name) => {
                let place = self.at(name.ident.span());
                self.into.paths.push((format!("{before}{}", name.ident), place));
            }
            syn::UseTree::Rename(rename) => {
                let place = self.at(rename.ident.span());
                self.into.paths.push((format!("{before}{}", rename.ident), place));
            }
            syn::UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {} // documentation is prose

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, "");
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let place = path.segments.first().map(|segment| self.at(segment.ident.span()));
        self.into.paths.push((names.join("::"), place.unwrap_or_default()));
        visit::visit_path(self, path);
    }

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        self.into.literals.push((literal.value(), self.at(literal.span())));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.signature(&item.vis, &item.sig);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.signature(&item.vis, &item.sig);
        visit::visit_impl_item_fn(self, item);
    }
}

/// The names of a signature's types.
struct Types(String);

impl<'ast> Visit<'ast> for Types {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        for segment in &path.segments {
            self.0 += &format!(" {}", segment.ident);
        }
        visit::visit_path(self, path);
    }
}

fn none(of: &[(String, String)], wrong: impl Fn(&str) -> bool, rule: &str) {
    let found: Vec<String> = of
        .iter()
        .filter(|(text, _)| wrong(text))
        .map(|(text, place)| format!("{place}: {text}"))
        .collect();
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

fn is_of(path: &str, module: &str) -> bool {
    path == module || path.starts_with(&format!("{module}::"))
}

#[test]
fn core_and_stages_do_no_io() {
    for name in [
        "moeprune-core",
        "moeprune-saliency",
        "moeprune-similarity",
        "moeprune-cluster",
        "moeprune-select",
        "moeprune-score",
        "moeprune-linalg",
        "moeprune-repair",
    ] {
        let io = |path: &str| {
            ["std::fs", "std::net", "std::process"].iter().any(|module| is_of(path, module))
        };
        none(&contents(name).paths, io, "no files, no network, no processes");
    }
}

#[test]
fn names_of_weight_files_stand_in_one_crate() {
    for name in
        ["moeprune-core", "moeprune-model", "moeprune-capture", "moeprune-engine", "moeprune"]
    {
        let weights = |text: &str| {
            ["config.json", "model.safetensors", "model.safetensors.index.json"].contains(&text)
        };
        none(&contents(name).literals, weights, "the checkpoint crate opens weights and config");
    }
}

#[test]
fn no_code_asks_for_a_family_by_name() {
    for name in ["moeprune-core", "moeprune-model", "moeprune-capture", "moeprune-engine"] {
        let family = |text: &str| ["arctic", "mixtral"].contains(&text);
        none(&contents(name).literals, family, "families are values of kinds and descriptors");
    }
}

#[test]
fn no_code_asks_for_a_stage_by_name() {
    let stage =
        |text: &str| ["stun", "exhaustive", "owl", "wanda", "sparsegpt", "nearest"].contains(&text);
    none(&contents("moeprune-engine").literals, stage, "stages are values");
}

#[test]
fn signatures_of_clustering_are_of_plain_types() {
    let foreign = |text: &str| {
        ["Array1", "Array2", "ArrayBase", "ArrayView2", "DMatrix", "DatasetBase"]
            .iter()
            .any(|name| text.split(' ').any(|word| word == *name))
    };
    for name in ["moeprune-cluster", "moeprune-similarity", "moeprune-select"] {
        none(&contents(name).signatures, foreign, "linfa, ndarray and nalgebra stay inside");
    }
}

#[test]
fn files_that_a_user_names_are_not_written_directly() {
    let writes = |path: &str| {
        ["fs::write", "File::create", "std::fs::write", "std::fs::File::create"].contains(&path)
    };
    none(&contents("moeprune-cli").paths, writes, "results go through RunFiles::claim");
}

#[test]
fn the_cache_is_not_written() {
    let writes = |path: &str| {
        let name = path.rsplit("::").next().unwrap_or_default();
        let verbs = ["write", "create", "rename", "remove", "copy", "hard_link", "set_permissions"];
        (path.starts_with("fs::") || path.starts_with("std::fs::"))
            && verbs.iter().any(|verb| name.starts_with(verb))
            || is_of(path, "std::process")
            || path.ends_with("File::create")
            || path.ends_with("OpenOptions")
    };
    none(&contents("moeprune-hub").paths, writes, "the cache belongs to the tools of Hugging Face");
}

#[test]
fn the_command_line_never_asks() {
    let reads = |path: &str| is_of(path, "std::io::stdin") || is_of(path, "io::stdin");
    none(&contents("moeprune-cli").paths, reads, "nothing is read from standard input");
}

#[test]
fn the_forward_pass_takes_no_statistics_and_opens_no_file() {
    let model = contents("moeprune-model");
    none(&model.paths, |path| is_of(path, "std::fs"), "weights come through TensorSource");
    none(
        &model.paths,
        |path| {
            ["Observation", "RoutingSums", "InputMoments"]
                .contains(&path.rsplit("::").next().unwrap())
        },
        "sums are taken by sinks",
    );
}

/// Traits that are implemented outside of their crate.
const SEAMS: [(&str, &[&str]); 5] = [
    (
        "moeprune-core",
        &[
            "ExpertSimilarity",
            "ExpertSaliency",
            "ExpertClustering",
            "ExpertSelector",
            "WeightScorer",
            "WeightReconstructor",
            "MaskPattern",
            "SparsityAllocator",
            "TensorSource",
            "TensorSink",
            "Encoding",
        ],
    ),
    ("moeprune-files", &["Files", "ReadAt"]),
    ("moeprune-checkpoint", &["Container"]),
    ("moeprune-capture", &["CalibrationSource"]),
    ("moeprune-eval", &["Generator", "Task"]),
];

/// What the compiler then says is tested beside the traits, where a test does not build half of the dependencies again.
#[test]
fn a_missing_implementation_is_explained() {
    for (name, traits) in SEAMS {
        let package = crates().into_iter().find(|package| package.name == name).unwrap();
        let sources = package.sources();
        let items = sources.iter().flat_map(|source| &source.syntax.items);
        let explained: Vec<String> = items
            .filter_map(|item| match item {
                syn::Item::Trait(item) => Some(item),
                _ => None,
            })
            .filter(|item| item.attrs.iter().any(explains))
            .map(|item| item.ident.to_string())
            .collect();
        for seam in traits {
            assert!(explained.iter().any(|name| name == seam), "{name}: {seam}");
        }
    }
}

fn explains(attribute: &syn::Attribute) -> bool {
    let text = attribute.meta.require_list().map(|list| list.tokens.to_string());
    let path = attribute.path().segments.iter().map(|segment| segment.ident.to_string());
    path.collect::<Vec<_>>() == ["diagnostic", "on_unimplemented"]
        && text.is_ok_and(|text| text.contains("message =") && text.contains("note ="))
}

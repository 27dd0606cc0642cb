//! No module of a crate needs, by way of its siblings, itself.
//!
//! Each folder of modules is looked at by itself: its modules, each with everything below it, and which of them name items
//! of which. What a module takes from its parent is followed to where it is defined, through re-exports.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::sources::{Package, Source, is_for_tests, packages};

type Module = Vec<String>;

/// Names that a module brings in, and where they come from.
#[derive(Default)]
struct Scope {
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    items: BTreeSet<String>,
}

struct Crate {
    scopes: BTreeMap<Module, Scope>,
    /// Every path that a module's code names.
    named: BTreeMap<Module, BTreeSet<Vec<String>>>,
}

#[test]
fn no_module_needs_itself() {
    let cycles: Vec<String> = packages().iter().flat_map(cycles).collect();
    assert!(cycles.is_empty(), "modules in a circle:\n{}", cycles.join("\n"));
}

fn cycles(package: &Package) -> Vec<String> {
    let krate = Crate::read(&package.sources());
    let mut folders = BTreeMap::<Module, BTreeMap<String, BTreeSet<String>>>::new();
    for (from, paths) in &krate.named {
        for path in paths {
            let Some(to) = krate.home_of(from, path, 0) else { continue };
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
                let folder = folders.entry(from[..shared].to_vec()).or_default();
                folder.entry(a.clone()).or_default().insert(b.clone());
            }
        }
    }
    folders
        .iter()
        .filter_map(|(folder, edges)| {
            let circle = circle(edges)?;
            Some(format!("{} {}: {}", package.name, folder.join("::"), circle.join(" → ")))
        })
        .collect()
}

impl Crate {
    fn read(sources: &[Source]) -> Self {
        let mut krate = Self { scopes: BTreeMap::new(), named: BTreeMap::new() };
        for source in sources {
            let mut reader = Reader::default();
            reader.visit_file(&source.syntax);
            krate.scopes.entry(source.module.clone()).or_default().extend(reader.scope);
            krate.named.entry(source.module.clone()).or_default().extend(reader.named);
        }
        krate
    }

    /// The module that defines what `path`, as `from` writes it, stands for; `None` if that is in another crate.
    fn home_of(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(Vec::new(), rest, depth),
            "self" => self.descend(from.clone(), rest, depth),
            "super" => {
                self.home_of(&from[..from.len().checked_sub(1)?].to_vec(), &as_own(rest), depth)
            }
            _ if self.knows(from, first) => self.descend(from.clone(), path, depth),
            _ => None,
        }
    }

    fn knows(&self, module: &Module, name: &str) -> bool {
        let below: Module = module.iter().cloned().chain([name.to_owned()]).collect();
        self.scopes.contains_key(&below)
            || self.scopes.get(module).is_some_and(|scope| scope.imports.contains_key(name))
    }

    fn descend(&self, mut at: Module, path: &[String], depth: usize) -> Option<Module> {
        if depth > 20 {
            return None; // names that import each other, as an enum and its variants may
        }
        for (index, name) in path.iter().enumerate() {
            at.push(name.clone());
            if self.scopes.contains_key(&at) {
                continue;
            }
            at.pop();
            let scope = self.scopes.get(&at)?;
            if let Some(target) = scope.imports.get(name) {
                let target: Vec<String> =
                    target.iter().cloned().chain(path[index + 1..].iter().cloned()).collect();
                return self.home_of(&at, &target, depth + 1);
            }
            if !scope.items.contains(name) {
                let mut through = scope.globs.iter().map(|glob| {
                    let path: Vec<String> = glob.iter().cloned().chain([name.clone()]).collect();
                    self.home_of(&at, &path, depth + 1)
                });
                if let Some(found) = through.find_map(|found| found) {
                    return Some(found);
                }
            }
            return Some(at);
        }
        Some(at)
    }
}

fn as_own(rest: &[String]) -> Vec<String> {
    match rest.first().map(String::as_str) {
        Some("super") => rest.to_vec(),
        _ => ["self".to_owned()].into_iter().chain(rest.iter().cloned()).collect(),
    }
}

impl Scope {
    fn extend(&mut self, other: Self) {
        self.imports.extend(other.imports);
        self.globs.extend(other.globs);
        self.items.extend(other.items);
    }
}

#[derive(Default)]
struct Reader {
    scope: Scope,
    named: BTreeSet<Vec<String>>,
}

impl Reader {
    fn import(&mut self, tree: &syn::UseTree, before: &[String], public: bool) {
        let with = |name: &syn::Ident| -> Vec<String> {
            before.iter().cloned().chain([name.to_string()]).collect()
        };
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &with(&path.ident), public),
            syn::UseTree::Name(name) if name.ident == "self" => {
                let path = before.to_vec();
                let own = path.last().cloned().unwrap_or_default();
                self.bring(own, path, public);
            }
            syn::UseTree::Name(name) => {
                self.bring(name.ident.to_string(), with(&name.ident), public)
            }
            syn::UseTree::Rename(rename) => {
                self.bring(rename.rename.to_string(), with(&rename.ident), public);
            }
            syn::UseTree::Glob(_) => self.scope.globs.push(before.to_vec()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, before, public));
            }
        }
    }

    /// A re-export is a signpost; only what is used here is needed here.
    fn bring(&mut self, name: String, path: Vec<String>, public: bool) {
        if !public {
            self.named.insert(path.clone());
        }
        self.scope.imports.insert(name, path);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (attributes, name) = match item {
            syn::Item::Mod(item) => (&item.attrs, None),
            syn::Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            syn::Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Type(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Const(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Static(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Use(item) => (&item.attrs, None),
            syn::Item::Impl(item) => (&item.attrs, None),
            _ => return visit::visit_item(self, item),
        };
        if is_for_tests(attributes) {
            return;
        }
        self.scope.items.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&item.tree, &[], public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.named.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// A circle in a graph, if there is one.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    edges.keys().find_map(|start| back_to(start, start, edges, &mut BTreeSet::new()))
}

fn back_to(
    start: &str,
    at: &str,
    edges: &BTreeMap<String, BTreeSet<String>>,
    seen: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    for next in edges.get(at).into_iter().flatten() {
        if next == start {
            return Some(vec![at.to_owned(), start.to_owned()]);
        }
        if seen.insert(next.clone())
            && let Some(mut rest) = back_to(start, next, edges, seen)
        {
            rest.insert(0, at.to_owned());
            return Some(rest);
        }
    }
    None
}

#[test]
fn a_circle_is_found() {
    let check = |edges: &[(&str, &[&str])], expected: Option<&[&str]>| {
        let edges = edges
            .iter()
            .map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect()))
            .collect();
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(circle(&edges), expected);
    };
    check(&[("a", &["b"]), ("b", &["c"])], None);
    check(&[("a", &["b"]), ("b", &["a"])], Some(&["a", "b", "a"]));
    check(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["a"])], Some(&["a", "c", "a"]));
}

#[test]
fn names_are_followed_through_re_exports() {
    let source = |module: &[&str], text: &str| Source {
        path: module.join("/"),
        module: module.iter().map(|part| (*part).to_owned()).collect(),
        syntax: syn::parse_file(text).unwrap(),
    };
    let krate = Crate::read(&[
        source(&[], "mod a; mod b; pub use b::{inner::Deep, Thing as Renamed};"),
        source(&["a"], "use crate::{Deep, Renamed}; fn f(x: super::b::Thing) {}"),
        source(&["b"], "mod inner; pub struct Thing; pub use inner::*;"),
        source(&["b", "inner"], "pub struct Deep;"),
    ]);
    let check = |path: &[&str], expected: Option<&[&str]>| {
        let own = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(krate.home_of(&own(&["a"]), &own(path), 0), expected.map(own), "{path:?}");
    };
    check(&["crate", "Deep"], Some(&["b", "inner"]));
    check(&["crate", "Renamed"], Some(&["b"]));
    check(&["super", "b", "Deep"], Some(&["b", "inner"]));
    check(&["Renamed", "new"], Some(&["b"]));
    check(&["std", "fs"], None);
}

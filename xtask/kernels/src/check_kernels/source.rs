//! Kernel sources, and what their PTX says of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::root;

/// A source file of kernels.
pub(super) struct Kernels {
    path: PathBuf,
    pub(super) text: String,
    /// The file and those it includes, with the hash of each.
    hashes: Vec<(String, String)>,
}

/// All kernel sources of the workspace, sorted.
pub(super) fn find() -> Result<Vec<Kernels>> {
    let mut paths = Vec::new();
    for one in fs::read_dir(root().join("crates"))? {
        let Ok(files) = fs::read_dir(one?.path().join("kernels")) else { continue };
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "cu") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.into_iter().map(Kernels::read).collect()
}

impl Kernels {
    fn read(path: PathBuf) -> Result<Self> {
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let text = read(&path)?;
        let mut hashes = vec![(file_name(&path), hash(&text))];
        for name in text.lines().filter_map(included) {
            let included = path.with_file_name(name);
            hashes.push((file_name(&included), hash(&read(&included)?)));
        }
        Ok(Self { path, text, hashes })
    }

    pub(super) fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    pub(super) fn ptx(&self) -> PathBuf {
        self.path.with_extension("ptx")
    }

    /// The PTX as it is committed: what it was made from, and nothing of the compiler's banner.
    pub(super) fn committed(&self, ptx: &str) -> String {
        let hashes = self.header();
        let code =
            ptx.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        hashes.chain(code.map(str::to_owned)).flat_map(|line| [line, "\n".to_owned()]).collect()
    }

    /// The first lines of the PTX, one for each file it is made from.
    fn header(&self) -> impl Iterator<Item = String> {
        self.hashes.iter().map(|(name, hash)| format!("// {name} {hash}"))
    }
}

/// The name in `#include "name"`.
fn included(line: &str) -> Option<&str> {
    line.strip_prefix("#include \"")?.strip_suffix('"')
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.display().to_string()).unwrap_or_default()
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no CUDA: a kernel that is changed without making its PTX again is noticed everywhere.
    #[test]
    fn committed_ptx_is_of_the_committed_sources() {
        let all = find().unwrap();
        assert!(all.len() >= 4, "no kernels");
        for kernels in all {
            let ptx = fs::read_to_string(kernels.ptx()).unwrap();
            let header: Vec<&str> = ptx.lines().take_while(|line| line.starts_with("//")).collect();
            assert!(
                header == kernels.header().collect::<Vec<_>>(),
                "{} is of another source; run `cargo xtask check-kernels --write`",
                kernels.ptx().display()
            );
        }
    }
}

//! What a run reads.

use std::path::Path;

use crate::{OutputKind, identity::Identity, place::real};

/// Files and models that no output may replace.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    files: Vec<Identity>,
    models: Vec<Model>,
}

/// A model folder and the files that are directly in it, or that links in it lead to.
#[derive(Debug)]
struct Model {
    folder: Identity,
    files: Vec<Identity>,
}

impl Inputs {
    /// Adds a file; one that is not there is no input.
    pub(crate) fn add(&mut self, file: &Path) {
        self.files.extend(Identity::of(file));
    }

    /// Adds every file in the folder of a model; of a model that is a file, that one.
    pub(crate) fn add_model(&mut self, folder: &Path) {
        if folder.is_file() {
            return self.add(folder);
        }
        let Some(identity) = Identity::of(folder) else { return };
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| {
            let path = entry.path();
            let metadata = path.metadata().ok().filter(|metadata| !metadata.is_dir())?;
            Some(Identity::new(&path, &metadata))
        });
        self.models.push(Model { folder: identity, files: files.collect() });
    }

    /// Whether a file is an input that an output of this kind must not replace.
    pub(crate) fn contains(&self, place: &Path, file: &Identity, kind: OutputKind) -> bool {
        if self.files.contains(file) {
            return true;
        }
        let of_a_model = self.models.iter().any(|model| model.files.contains(file))
            || self.models.iter().any(|model| lies_in(place, &model.folder));
        of_a_model && !(kind.may_lie_in_a_model() && kind.wrote(place))
    }
}

fn lies_in(place: &Path, folder: &Identity) -> bool {
    let real = real(place);
    real.ancestors().skip(1).any(|above| Identity::of(above).as_ref() == Some(folder))
}

//! Whether the files of a plan are there already.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use crate::{Error, container::PlannedFile};

/// Whether a planned file is there. It is an error if what is there is not the one planned.
pub(super) fn is_begun(plan: &PlannedFile, dir: &Path) -> Result<bool, Error> {
    let path = dir.join(&plan.name);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io("open", path)(e)),
    };
    let (bytes, planned) =
        (file.metadata().map_err(Error::io("inspect", &path))?.len(), plan.bytes);
    if bytes != planned {
        let what = format!("is {bytes} bytes long, but would be {planned} bytes");
        return Err(other_plan(&path, &what));
    }
    let mut header = vec![0; plan.header.len()];
    file.read_exact(&mut header).map_err(Error::io("read the header of", &path))?;
    if header == plan.header {
        return Ok(true);
    }
    Err(other_plan(&path, "announces other tensors than would be written"))
}

pub(super) fn other_plan(path: &Path, what: &str) -> Error {
    let reason = format!(
        "{what}; it was begun for another plan or another model, and cannot be resumed with this \
         one: start again, or go back to what it was begun with"
    );
    Error::Output { path: path.to_owned(), reason }
}

/// File and position in it, by name of a tensor.
pub(super) type Places = BTreeMap<String, (usize, usize)>;

pub(super) fn places(files: &[PlannedFile]) -> Places {
    let of_file = |(s, file): (usize, &PlannedFile)| {
        let names = file.tensors.iter().enumerate();
        names.map(|(t, tensor)| (tensor.name.clone(), (s, t))).collect::<Vec<_>>()
    };
    files.iter().enumerate().flat_map(of_file).collect()
}

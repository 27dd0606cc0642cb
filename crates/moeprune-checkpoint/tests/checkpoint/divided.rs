//! Weight files written in parts and put together.

use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path};

use moeprune_checkpoint::{
    Checkpoint, DividedFiles, DividedPart, Division, OutputForm, OutputLayout, PartWriter,
};
use moeprune_core::{PartOf, TensorId};
use proptest::prelude::*;

fn model(name: &str) -> Checkpoint {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/parity");
    Checkpoint::open(&assets.join(name)).unwrap()
}

/// All experts stay.
fn layout(model: &Checkpoint) -> OutputLayout {
    model.output_layout(model.spec(), &|_, expert| Some(expert)).unwrap()
}

/// In files of so many bytes of tensors.
fn form(model: &Checkpoint, max_file_bytes: u64) -> OutputForm<'static> {
    OutputForm { max_file_bytes, ..model.output_form() }
}

fn copy_layer(writer: &mut PartWriter, model: &Checkpoint, layer: usize) {
    let tensors = writer.layout().of(Some(layer));
    let parts: Vec<TensorId> = tensors.flat_map(|tensor| tensor.parts.clone()).collect();
    let pairs: Vec<_> = parts.into_iter().map(|part| (part, part)).collect();
    writer.copy(&pairs, model, &mut |_| ()).unwrap();
}

/// Writes a part, or, of `None`, all.
fn write(model: &Checkpoint, bytes: u64, to: &Path, part: Option<(&Division, PartOf)>) {
    fs::create_dir_all(to).unwrap();
    let mut writer = PartWriter::resume(to, form(model, bytes), layout(model)).unwrap();
    let is_own = |layer| part.is_none_or(|(division, part)| division.owner(layer) == part);
    let spec = model.spec();
    let layers = (0..spec.layers.len()).chain(spec.extra_layers());
    for layer in layers.filter(|layer| is_own(Some(*layer))) {
        copy_layer(&mut writer, model, layer);
    }
    if is_own(None) {
        writer.copy_outside_layers(model).unwrap();
    }
    match part {
        None => drop(writer.finish().unwrap()),
        Some((division, part)) => {
            writer.finish_part(division, part).unwrap();
            let divided = DividedFiles::new(form(model, bytes), &layout(model), division).unwrap();
            let of = DividedPart { part, folder: to };
            divided.mark_shares(of).unwrap();
            // A process that was killed here resumes.
            DividedFiles::unmark_shares(to).unwrap();
            divided.mark_shares(of).unwrap();
        }
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let file = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

/// Stops joining after each number of files, and goes on.
fn check(name: &str, bytes: u64, parts: usize) {
    let model = model(name);
    let scratch = tempfile::tempdir().unwrap();
    let (whole, joined) = (scratch.path().join("whole"), scratch.path().join("joined"));
    write(&model, bytes, &whole, None);
    let division = Division::new(model.spec().layers.len(), parts).unwrap();
    let folders: Vec<_> = PartOf::all(parts)
        .unwrap()
        .map(|part| (part, scratch.path().join(part.index().to_string())))
        .collect();
    for (part, folder) in folders.iter().rev() {
        write(&model, bytes, folder, Some((&division, *part)));
    }
    let parts: Vec<_> =
        folders.iter().map(|(part, folder)| DividedPart { part: *part, folder }).collect();
    let divided = DividedFiles::new(form(&model, bytes), &layout(&model), &division).unwrap();
    fs::create_dir(&joined).unwrap();
    let mut stops = 0;
    loop {
        parts.iter().for_each(|part| divided.check(*part, Some(&joined)).unwrap());
        let mut left = stops;
        let watch = &mut |_| match left {
            0 => ControlFlow::Break(()),
            _ => {
                left -= 1;
                ControlFlow::Continue(())
            }
        };
        if divided.join(&parts, &joined, watch).unwrap().is_continue() {
            break;
        }
        stops += 1;
    }
    assert!(
        files(&joined) == files(&whole),
        "{name} in files of {bytes} and {} parts",
        parts.len()
    );
    for part in &parts {
        let names = divided.names_of(part.part).collect::<Vec<_>>();
        assert!(files(part.folder).keys().all(|name| names.contains(name)));
    }
}

#[test]
fn files_that_no_part_has_alone() {
    for parts in [2, 3, 5] {
        check("mixtral", u64::MAX, parts);
        check("glm4_moe", u64::MAX, parts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn files_of_any_size(bytes in 20_000..400_000_u64, parts in 1..6_usize) {
        check("mixtral", bytes, parts);
    }
}

#[test]
fn what_is_not_of_a_part() {
    let model = model("mixtral");
    let scratch = tempfile::tempdir().unwrap();
    let division = Division::new(model.spec().layers.len(), 2).unwrap();
    let [first, second] = [1, 2].map(|index| PartOf::new(index, 2).unwrap());
    write(&model, 100_000, scratch.path(), Some((&division, second)));
    let divided = DividedFiles::new(form(&model, 100_000), &layout(&model), &division).unwrap();
    let check = |part, expected: &str| {
        let error = divided.check(DividedPart { part, folder: scratch.path() }, None).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(first, "part 1/2 is not whole");
    divided.check(DividedPart { part: second, folder: scratch.path() }, None).unwrap();
    // Unfinished: what was not put is named.
    let writer = PartWriter::resume(scratch.path(), form(&model, 100_000), layout(&model)).unwrap();
    let error = writer.finish_part(&division, first).unwrap_err().to_string();
    assert!(error.contains("part 1/2 finished") && error.contains("is missing"), "{error}");
    // Without the other part nothing is joined.
    let to = tempfile::tempdir().unwrap();
    let parts = [DividedPart { part: second, folder: scratch.path() }];
    let error = divided.join(&parts, to.path(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

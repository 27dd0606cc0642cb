//! Writing a pruned model part by part.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

use moeprune_core::{PartOf, TensorBytes, TensorId};

use super::{Division, OutputLayout, OutputTensor, RangeCopy, ShardedWriter, WrittenCheckpoint};
use crate::{Checkpoint, Error, container::OutputForm, place::Place};

/// Writes the parts of a pruned model to where its [layout](OutputLayout) has them, in any order.
///
/// A part that shares bytes with others (gate and up whose columns take turns, say) is held until
/// the others were put.
#[derive(Debug)]
pub struct PartWriter {
    writer: ShardedWriter,
    layout: OutputLayout,
    /// By the number of the tensor and the slab's first byte.
    unfinished: BTreeMap<(usize, u64), Slab>,
}

/// Bytes of a tensor that several parts share.
#[derive(Debug)]
struct Slab {
    bytes: Vec<u8>,
    /// Parts that were not put yet.
    missing: Vec<TensorId>,
}

impl PartWriter {
    /// On top of what an earlier writer with the same layout left in `dir`, as
    /// [`ShardedWriter::resume`].
    ///
    /// # Errors
    /// As [`ShardedWriter::resume`].
    pub fn resume(dir: &Path, form: OutputForm<'_>, layout: OutputLayout) -> Result<Self, Error> {
        let planned = layout.tensors().iter().map(|tensor| tensor.planned.clone()).collect();
        let writer = ShardedWriter::resume(dir, form, planned)?;
        Ok(Self { writer, layout, unfinished: BTreeMap::new() })
    }

    /// Where each part goes.
    #[must_use]
    pub fn layout(&self) -> &OutputLayout {
        &self.layout
    }

    /// Bytes that all weight files will have together.
    #[must_use]
    pub fn planned_bytes(&self) -> u64 {
        self.writer.planned_bytes()
    }

    /// Declares that an earlier process wrote the tensors of a layer, or of `None` those of no layer,
    /// and made them durable.
    ///
    /// # Errors
    /// If a file of them is not there.
    pub fn mark_written(&mut self, layer: Option<usize>) -> Result<(), Error> {
        for tensor in self.layout.of(layer) {
            self.writer.mark_written(&tensor.planned.name)?;
        }
        Ok(())
    }

    /// Puts a part, in the type of its tensor. Of one that several tensors hold together, the one with the
    /// codes; the others are [copied](Self::copy_companions).
    ///
    /// # Errors
    /// If the pruned model has no such part, or of another type or shape; if it was put before, or
    /// writing fails.
    pub fn put(&mut self, part: TensorId, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        let (output, place) = self.layout.place_of(part)?;
        let name = &output.planned.name;
        if place.dtype() != tensor.dtype() || place.shape() != tensor.shape() {
            return Err(announced_otherwise((part, name), place, tensor));
        }
        if place.is_contiguous() {
            return self.writer.put_range(name, place.bytes().start, tensor.bytes());
        }
        let key = (place.tensor(), place.bytes().start);
        let slab = self.unfinished.entry(key).or_insert_with(|| self.layout.slab(place));
        let Some(at) = slab.missing.iter().position(|missing| *missing == part) else {
            let reason = format!("{part} of `{name}` is written already; each part comes once");
            return Err(Error::Order { reason });
        };
        slab.missing.remove(at);
        place.scatter(tensor.bytes(), &mut slab.bytes);
        if slab.missing.is_empty()
            && let Some(slab) = self.unfinished.remove(&key)
        {
            self.writer.put_range(name, key.1, &slab.bytes)?;
        }
        Ok(())
    }

    /// Puts a part again that was put before, or written by an earlier process.
    ///
    /// # Errors
    /// If the pruned model has no such part, or of another type or shape; if it was not written before or
    /// shares bytes with other parts, or writing fails.
    pub fn replace(&mut self, part: TensorId, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        let (output, place) = self.layout.place_of(part)?;
        let name = &output.planned.name;
        if place.dtype() != tensor.dtype() || place.shape() != tensor.shape() {
            return Err(announced_otherwise((part, name), place, tensor));
        }
        if place.is_contiguous() {
            return self.writer.replace_range(name, place.bytes().start, tensor.bytes());
        }
        let Slab { mut bytes, missing } = self.layout.slab(place);
        if missing.len() > 1 {
            let reason = format!("{part} of `{name}` shares bytes with other parts");
            return Err(Error::Order { reason });
        }
        place.scatter(tensor.bytes(), &mut bytes);
        self.writer.replace_range(name, place.bytes().start, &bytes)
    }

    /// Copies the stored bytes of parts, given as pairs of the part here and the part in `from`, and of
    /// all tensors that hold such a part together.
    /// Parts that share bytes are copied together, if they come from the same expert. `progress` is
    /// called with how many bytes were copied since it was last called.
    ///
    /// # Errors
    /// If one of the models has no such part, one was put before, or copying fails.
    pub fn copy(
        &mut self,
        pairs: &[(TensorId, TensorId)],
        from: &Checkpoint,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut copies: Vec<RangeCopy<'_>> = Vec::with_capacity(pairs.len());
        for &(part, source) in pairs {
            let (output, place) = self.layout.place_of(part)?;
            let origin = from.place_of(source)?;
            let copy = RangeCopy {
                name: &output.planned.name,
                at: place.bytes().start,
                source: &from.tensor_at(origin).name,
                range: origin.bytes(),
            };
            if length(&place.bytes()) != length(&copy.range) {
                let reason = format!("{source} has not as many bytes as {part}");
                return Err(Error::Order { reason });
            }
            if place.is_contiguous() || !copies.contains(&copy) {
                copies.push(copy);
            }
            copies.extend(self.layout.companion_copies((part, source), from)?);
        }
        self.writer.copy_ranges(&copies, from, progress)
    }

    /// Copies what is stored of a part beside its codes, from a part of `from`: nothing where it is one
    /// tensor.
    ///
    /// # Errors
    /// If they were put before, `from` has none of their names and sizes, or copying fails.
    pub fn copy_companions(
        &mut self,
        part: TensorId,
        source: TensorId,
        from: &Checkpoint,
    ) -> Result<(), Error> {
        let copies = self.layout.companion_copies((part, source), from)?;
        if copies.is_empty() {
            return Ok(());
        }
        self.writer.copy_ranges(&copies, from, &mut |_| ())
    }

    /// Puts what is stored of a part beside its codes where those are new: the tensors of these suffixes
    /// (as an encoding names them), and copies of the others from a part of `from`.
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`copy_companions`](Self::copy_companions).
    pub fn put_companions(
        &mut self,
        part: TensorId,
        new: &[(&str, &TensorBytes<'_>)],
        (source, from): (TensorId, &Checkpoint),
    ) -> Result<(), Error> {
        let mut copies = self.layout.companion_copies((part, source), from)?;
        let announced = self.layout.new_companions(part, new)?;
        copies.retain(|copy| {
            !announced.iter().any(|(name, at, _)| *name == copy.name && *at == copy.at)
        });
        for (name, at, bytes) in announced {
            self.writer.put_range(name, at, bytes)?;
        }
        if copies.is_empty() {
            return Ok(());
        }
        self.writer.copy_ranges(&copies, from, &mut |_| ())
    }

    /// Puts such tensors again that were put before, or written by an earlier process.
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    pub fn replace_companions(
        &mut self,
        part: TensorId,
        new: &[(&str, &TensorBytes<'_>)],
    ) -> Result<(), Error> {
        for (name, at, bytes) in self.layout.new_companions(part, new)? {
            self.writer.replace_range(name, at, bytes)?;
        }
        Ok(())
    }

    /// Copies the tensors that belong to no layer.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub fn copy_outside_layers(&mut self, from: &Checkpoint) -> Result<(), Error> {
        let names: Vec<&str> =
            self.layout.of(None).map(|tensor| tensor.planned.name.as_str()).collect();
        let pairs: Vec<(&str, &str)> = names.into_iter().map(|name| (name, name)).collect();
        self.writer.copy_all(&pairs, from, &mut |_| ())
    }

    /// As [`ShardedWriter::sync`]. Parts that wait for others are not among what it makes durable.
    ///
    /// # Errors
    /// As [`ShardedWriter::sync`].
    pub fn sync(&mut self) -> Result<(), Error> {
        self.writer.sync()
    }

    /// As [`ShardedWriter::finish`].
    ///
    /// # Errors
    /// As [`ShardedWriter::finish`], and if parts wait for others that were never put.
    pub fn finish(self) -> Result<WrittenCheckpoint, Error> {
        self.check_nothing_waits()?;
        self.writer.finish()
    }

    /// Makes everything durable that one share of a divided model consists of: of files that others have a share in,
    /// too, what is of others stays a hole. The index is left to [`DividedFiles`](super::DividedFiles).
    ///
    /// # Errors
    /// If tensors of the share are missing, naming the first, or writing fails.
    pub fn finish_part(self, division: &Division, part: PartOf) -> Result<(), Error> {
        self.check_nothing_waits()?;
        let own = self.layout.tensors().iter().filter(|t| division.owner(t.layer) == part);
        let own: BTreeSet<&str> = own.map(|tensor| tensor.planned.name.as_str()).collect();
        if let Some(name) = self.writer.missing().find(|name| own.contains(name)) {
            let reason = format!("part {part} finished; `{name}` is missing");
            return Err(Error::Order { reason });
        }
        self.writer.finish_some(division.owner(None) == part)
    }

    /// Bytes of the tensors of one share of a divided model.
    #[must_use]
    pub fn planned_bytes_of(&self, division: &Division, part: PartOf) -> u64 {
        let tensors = self.layout.tensors().iter();
        let own = tensors.filter(|tensor| division.owner(tensor.layer) == part);
        let bytes = own.filter_map(|OutputTensor { planned, .. }| {
            planned.dtype.bytes_of_shape(&planned.shape).map(|bytes| bytes as u64)
        });
        bytes.sum()
    }

    fn check_nothing_waits(&self) -> Result<(), Error> {
        if let Some(missing) = self.unfinished.values().flat_map(|slab| &slab.missing).next() {
            let reason = format!("finished before {missing} was put");
            return Err(Error::Order { reason });
        }
        Ok(())
    }
}

fn announced_otherwise(
    (part, name): (TensorId, &str),
    place: &Place,
    tensor: &TensorBytes<'_>,
) -> Error {
    let (dtype, shape) = (place.dtype(), place.shape());
    let (got, of) = (tensor.dtype(), tensor.shape());
    let reason =
        format!("{part} of `{name}` was announced as {dtype} {shape:?} but is {got} {of:?}");
    Error::Order { reason }
}

/// The tensor, the first byte, and the bytes from there on.
type NewBytes<'a> = (&'a str, u64, &'a [u8]);

impl OutputLayout {
    /// Where new tensors beside a part's codes go: the tensor, the first byte, and the bytes.
    fn new_companions<'a>(
        &'a self,
        part: TensorId,
        new: &[(&str, &'a TensorBytes<'_>)],
    ) -> Result<Vec<NewBytes<'a>>, Error> {
        let mut announced = Vec::new();
        for &(suffix, tensor) in new {
            let mut companions = self.companions(part);
            let found = companions.find(|(of, ..)| *of == suffix.trim_start_matches('.'));
            let Some((_, output, place)) = found else {
                let reason = format!("{part} has no tensor `{suffix}`");
                return Err(Error::Order { reason });
            };
            let name = &output.planned.name;
            if place.dtype() != tensor.dtype()
                || length(&place.bytes()) != tensor.bytes().len() as u64
            {
                return Err(announced_otherwise((part, name), place, tensor));
            }
            announced.push((name.as_str(), place.bytes().start, tensor.bytes()));
        }
        Ok(announced)
    }

    /// What is copied of a part beside its codes.
    fn companion_copies<'a>(
        &'a self,
        (part, source): (TensorId, TensorId),
        from: &'a Checkpoint,
    ) -> Result<Vec<RangeCopy<'a>>, Error> {
        let mut copies = Vec::new();
        for (suffix, output, place) in self.companions(part) {
            let name = &output.planned.name;
            let Some((stored, origin)) = from.companion(source, suffix)? else {
                let reason = format!("{source} has no tensor for `{name}`");
                return Err(Error::Order { reason });
            };
            let (at, range) = (place.bytes(), origin.bytes());
            if length(&at) != length(&range) {
                let reason = format!("`{}` has not as many bytes as `{name}`", stored.name);
                return Err(Error::Order { reason });
            }
            copies.push(RangeCopy { name, at: at.start, source: &stored.name, range });
        }
        Ok(copies)
    }

    /// The bytes that a place is in, and all parts that share them.
    fn slab(&self, place: &Place) -> Slab {
        let tensor = &self.tensors()[place.tensor()];
        let shares = |part: &&TensorId| {
            self.place_of(**part).is_ok_and(|(_, other)| other.bytes() == place.bytes())
        };
        let missing = tensor.parts.iter().filter(shares).copied().collect();
        Slab { bytes: vec![0; length(&place.bytes()) as usize], missing }
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

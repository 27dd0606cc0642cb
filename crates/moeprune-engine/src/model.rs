//! An open model, as planning and observing need it.

use std::{fmt, ops::Range, path::Path};

use moeprune_checkpoint::{Checkpoint, ContentHash};
use moeprune_core::{
    Fingerprint, ModelSpec, SameModel, StageError, TensorBytes, TensorId, TensorSource,
};
use moeprune_files::FileIdentity;

use crate::Error;

/// A model whose weights can be read: what every step of a pruning works on, up to writing.
///
/// A [`Checkpoint`] is one. A model that is in memory, or is a view of another model, is one too as
/// soon as it says what it is made of and which model that is; everything else has a default. Writing
/// a pruned model ([`Job::apply`](crate::Job::apply)) needs a checkpoint besides, the
/// [origin](crate::Run::origin) of the files that stay as they are.
///
/// ```
/// use moeprune_core::{
///     Dtype, ModelSpec, StageError, StoredWeight, TensorBytes, TensorId, TensorSource,
/// };
/// use moeprune_engine::{Error, Model};
///
/// /// Every weight is 1.
/// #[derive(Debug)]
/// struct Ones(ModelSpec);
///
/// impl TensorSource for Ones {
///     fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
///         let part = self.0.part(id).ok_or_else(|| format!("there is no {id}"))?;
///         let bytes = 1.0_f32.to_le_bytes().repeat(part.parameters() as usize);
///         Ok(StoredWeight::alone(TensorBytes::new(Dtype::F32, part.shape, bytes)?)?)
///     }
/// }
///
/// impl Model for Ones {
///     fn spec(&self) -> &ModelSpec {
///         &self.0
///     }
///
///     fn fingerprint(&self) -> Result<String, Error> {
///         Ok("ones+f32".into())
///     }
///
///     fn name(&self) -> String {
///         "ones".into()
///     }
///
///     fn stored_bytes(&self, id: TensorId) -> u64 {
///         self.0.part(id).map_or(0, |part| 4 * part.parameters())
///     }
/// }
/// ```
pub trait Model: TensorSource + fmt::Debug {
    /// What the model is made of.
    fn spec(&self) -> &ModelSpec;

    /// The [`Fingerprint`] as text: what the model is, and how it is stored. Observations and plans
    /// carry it.
    ///
    /// # Errors
    /// If a router cannot be read.
    fn fingerprint(&self) -> Result<String, Error>;

    /// What messages call the model: the directory of one that has a directory.
    fn name(&self) -> String;

    /// Bytes of a part as it is stored; 0 of one that the model lacks. The memory that a run needs is
    /// estimated from these.
    fn stored_bytes(&self, id: TensorId) -> u64;

    /// Whether a part is stored in codes, not as numbers by themselves. By default the part is read; what
    /// cannot be read is said where it is used.
    fn is_in_codes(&self, id: TensorId) -> bool {
        self.weight(id).is_ok_and(|weight| weight.encoding().float().is_none())
    }

    /// Whether a part is stored as numbers of bf16, in which the CPU holds it. By default the part is read.
    fn is_bf16(&self, id: TensorId) -> bool {
        self.weight(id).is_ok_and(|weight| {
            weight.encoding().float() == Some(moeprune_core::encoding::Float::Bf16)
        })
    }

    /// Whether any weight of the decoder's is stored in codes.
    fn has_weights_in_codes(&self) -> bool {
        self.spec().parts().iter().any(|part| self.is_in_codes(part.id))
    }

    /// Whether a fingerprint that an observation or a plan carries is this model's.
    ///
    /// # Errors
    /// As [`fingerprint`](Self::fingerprint).
    fn is_of(&self, fingerprint: &str) -> Result<SameModel, Error> {
        Ok(Fingerprint::compare(fingerprint, &self.fingerprint()?))
    }

    /// What messages call a part; its name on disk, if it has one.
    ///
    /// # Errors
    /// If the model can have no such part.
    fn name_of(&self, id: TensorId) -> Result<String, Error> {
        Ok(id.to_string())
    }

    /// Some elements of a part, counted row by row, as a vector. By default the whole part is read.
    ///
    /// # Errors
    /// If the model has no such part, the part has no such elements, or they cannot be read.
    fn elements(
        &self,
        id: TensorId,
        elements: Range<usize>,
    ) -> Result<TensorBytes<'_>, StageError> {
        let tensor = self.tensor(id)?;
        let (dtype, got) = (tensor.dtype(), tensor.elements());
        if elements.start > elements.end || elements.end > got {
            let expected = elements.end;
            return Err(moeprune_core::Error::Length { what: "tensor range", expected, got }.into());
        }
        let byte = |element: usize| dtype.bytes_of(element);
        let (Some(start), Some(end)) = (byte(elements.start), byte(elements.end)) else {
            return Err(moeprune_core::Error::Unaligned { dtype, range: elements }.into());
        };
        let bytes = tensor.bytes()[start..end].to_vec();
        Ok(TensorBytes::new(dtype, [elements.len()], bytes)?)
    }

    /// Bytes of all weights as they are stored.
    fn weight_bytes(&self) -> u64 {
        self.spec().parts().iter().map(|part| self.stored_bytes(part.id)).sum()
    }

    /// The bytes of a file that belongs to the model, such as its tokenizer, given the path relative to
    /// it; `None` if there is none.
    ///
    /// # Errors
    /// If the file is longer than `most` bytes, must not be read, or cannot be.
    fn read_file(&self, relative: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let _ = (relative, most);
        Ok(None)
    }

    /// What identifies the model's files at this moment: an interrupted run is resumed only if they are
    /// the same. None of a model without files, which its fingerprint alone identifies.
    ///
    /// # Errors
    /// If a file is not there any more.
    fn file_identities(&self) -> Result<Vec<FileIdentity>, Error> {
        Ok(Vec::new())
    }

    /// What these files hold, by hashes, so that a copy of the model is known as the same. None of a model
    /// without files; files without a hash are the same if their [identities](Self::file_identities) are.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn content_hashes(&self) -> Result<Vec<ContentHash>, Error> {
        Ok(Vec::new())
    }
}

impl Model for Checkpoint {
    fn spec(&self) -> &ModelSpec {
        self.spec()
    }

    fn fingerprint(&self) -> Result<String, Error> {
        Ok(self.fingerprint()?)
    }

    fn name(&self) -> String {
        self.dir().display().to_string()
    }

    fn stored_bytes(&self, id: TensorId) -> u64 {
        self.stored_bytes(id)
    }

    fn is_in_codes(&self, id: TensorId) -> bool {
        self.is_in_codes(id)
    }

    fn is_bf16(&self, id: TensorId) -> bool {
        self.is_bf16(id)
    }

    fn is_of(&self, fingerprint: &str) -> Result<SameModel, Error> {
        Ok(self.is_of(fingerprint)?)
    }

    fn name_of(&self, id: TensorId) -> Result<String, Error> {
        Ok(self.name_of(id)?)
    }

    fn elements(
        &self,
        id: TensorId,
        elements: Range<usize>,
    ) -> Result<TensorBytes<'_>, StageError> {
        Ok(self.elements(id, elements)?)
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn read_file(&self, relative: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.read_file(relative, most)?)
    }

    fn file_identities(&self) -> Result<Vec<FileIdentity>, Error> {
        Ok(self.file_identities()?)
    }

    fn content_hashes(&self) -> Result<Vec<ContentHash>, Error> {
        Ok(self.content_hashes()?)
    }
}

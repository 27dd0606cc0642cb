//! The tensors of one module, by what their names have after the module's.

use crate::Dtype;

/// What a file's header says of the tensors whose names begin with one module's name: the rest of
/// the name (with its dot, if there is one), the type and the shape. Of the module
/// `layers.0.mlp.experts.3.up_proj`, for example `.weight` and `.weight_scale_inv`; of
/// `layers.0.mlp.experts.down_proj` in gpt-oss, `_blocks`, `_scales` and `_bias`.
#[derive(Debug, Clone, Default)]
pub struct ModuleTensors<'a> {
    tensors: Vec<(&'a str, Dtype, &'a [usize])>,
}

impl<'a> ModuleTensors<'a> {
    /// The type and shape of a tensor.
    #[must_use]
    pub fn get(&self, suffix: &str) -> Option<(Dtype, &'a [usize])> {
        let found = self.tensors.iter().find(|(name, ..)| *name == suffix);
        found.map(|&(_, dtype, shape)| (dtype, shape))
    }

    /// The type of a tensor.
    #[must_use]
    pub fn dtype(&self, suffix: &str) -> Option<Dtype> {
        self.get(suffix).map(|(dtype, _)| dtype)
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn has(&self, suffix: &str) -> bool {
        self.get(suffix).is_some()
    }

    /// The names, in the order in which they came.
    pub fn suffixes(&self) -> impl Iterator<Item = &'a str> {
        self.tensors.iter().map(|&(suffix, ..)| suffix)
    }
}

impl<'a> FromIterator<(&'a str, Dtype, &'a [usize])> for ModuleTensors<'a> {
    fn from_iter<T: IntoIterator<Item = (&'a str, Dtype, &'a [usize])>>(tensors: T) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

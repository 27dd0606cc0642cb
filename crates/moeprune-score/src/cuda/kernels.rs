//! The kernels of this crate, loaded.

use std::sync::Arc;

use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaModule,
        sys::{CUdevice_attribute_enum as Device, CUfunction_attribute_enum as Attribute},
    },
    nvrtc::Ptx,
};

use super::{Error, error::Tried};
use moeprune_core::encoding::Float;

/// This crate's kernels, loaded in a context. Clones share them.
#[derive(Debug, Clone)]
pub struct ScoreKernels(pub(super) Arc<Kernels>);

/// Threads of a block, in every kernel of this crate.
pub(super) const THREADS: usize = 256;

#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) mask: ByType,
    pub(super) mask_any: CudaFunction,
    pub(super) mask_long: CudaFunction,
    /// Bytes that the keys of a row may take in the memory that a block shares.
    pub(super) shared_bytes: usize,
    pub(super) n_of_m: ByType,
    pub(super) n_of_m_any: CudaFunction,
    pub(super) score_sum: ByType,
    pub(super) count_above: ByType,
}

/// A kernel for each type of weights.
#[derive(Debug)]
pub(super) struct ByType {
    f32: CudaFunction,
    f16: CudaFunction,
    bf16: CudaFunction,
}

impl ByType {
    pub(super) fn of(&self, float: Float) -> &CudaFunction {
        match float {
            Float::F32 => &self.f32,
            Float::F16 => &self.f16,
            Float::Bf16 => &self.bf16,
        }
    }

    fn load(module: &Arc<CudaModule>, name: &str) -> Result<Self, Error> {
        let load = |dtype| function(module, &format!("{name}_{dtype}"));
        Ok(Self { f32: load("f32")?, f16: load("f16")?, bf16: load("bf16")? })
    }
}

impl ScoreKernels {
    /// Loads the kernels; the driver compiles them for its device, or has them in its cache.
    ///
    /// # Errors
    /// If the driver refuses them: the device must be of compute capability 8.0 or later.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self, Error> {
        let mask = module(context, include_str!("../../kernels/mask.ptx"))?;
        let n_of_m = module(context, include_str!("../../kernels/n_of_m.ptx"))?;
        let outliers = module(context, include_str!("../../kernels/outliers.ptx"))?;
        let mut kernels = Kernels {
            mask: ByType::load(&mask, "mask")?,
            mask_any: function(&mask, "mask_any")?,
            mask_long: function(&mask, "mask_long")?,
            shared_bytes: 0,
            n_of_m: ByType::load(&n_of_m, "n_of_m")?,
            n_of_m_any: function(&n_of_m, "n_of_m_any")?,
            score_sum: ByType::load(&outliers, "score_sum")?,
            count_above: ByType::load(&outliers, "count_above")?,
        };
        kernels.share_all(context)?;
        Ok(Self(Arc::new(kernels)))
    }
}

impl Kernels {
    /// Lets rows be as long as the device's shared memory has room for, beyond what every block
    /// gets without asking.
    fn share_all(&mut self, context: &Arc<CudaContext>) -> Result<(), Error> {
        let most = context
            .attribute(Device::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
            .tried("tell how much memory a block may share")?;
        let ByType { f32, f16, bf16 } = &self.mask;
        let functions = [f32, f16, bf16, &self.mask_any];
        let mut room = most;
        for function in functions {
            let own = function.shared_size_bytes().tried("tell how much memory a kernel shares")?;
            room = room.min(most - own);
        }
        for function in functions {
            function
                .set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, room)
                .tried("let a block share more memory")?;
            function
                .set_attribute(
                    Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                    100, // per cent
                )
                .tried("prefer shared memory to cache")?;
        }
        self.shared_bytes = usize::try_from(room).unwrap_or_default();
        Ok(())
    }
}

fn module(context: &Arc<CudaContext>, ptx: &str) -> Result<Arc<CudaModule>, Error> {
    context
        .load_module(Ptx::from_src(ptx))
        .tried("load the kernels for masks, which need compute capability 8.0")
}

fn function(module: &Arc<CudaModule>, name: &str) -> Result<CudaFunction, Error> {
    module.load_function(name).tried("find a kernel for masks and outliers")
}

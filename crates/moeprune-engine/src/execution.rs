//! Where a run computes.

use std::{fmt, str::FromStr};

use candle_core::DType;
use moeprune_core::{CorpusTag, ModelSpec};
use moeprune_model::Compute;

use crate::{
    AnsweringNeed, AvailableMemory, Error, ExpertPlace, MemoryLimit, MemoryNeed, Model, Progress,
    Rates, Remedy, RunKind, device_memory::DeviceNeed,
};

/// The device to run on: `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// ```
/// use moeprune_engine::DeviceChoice;
/// assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
/// assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The first CUDA device if this build has CUDA and there is one, else the CPU.
    Auto,
    /// The CPU.
    #[default]
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(Self::Cuda(ordinal)),
                _ => Err(format!("`{text}` is none of auto, cpu, cuda, cuda:N")),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// In which type a device computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "what there are kernels for")]
pub enum ComputeType {
    /// Products in bf16; norms, softmax, routing and statistics in f32. The default on a GPU.
    Bf16,
    /// All in f32, as on the CPU: to compare the two.
    F32,
    /// On the CPU in f32, products of bf16 weights by its tiles (AMX).
    F32ByTiles,
}

/// A device that is open, how many calibration blocks go through a layer's trunk together, and how fast
/// the machine is taken to be.
///
/// On a device, an expert is brought there while the one before it is worked on, its weights are
/// zeroed in place, and it is fetched back and written while the next is worked on.
#[derive(Debug, Clone)]
pub struct Execution {
    compute: Compute,
    micro_batch: Option<usize>,
    holds_layer: bool,
    rates: Rates,
    max_memory: Option<u64>,
    streams_experts: bool,
    #[cfg(feature = "cuda")]
    kernels: Option<moeprune_score::cuda::ScoreKernels>,
}

/// Blocks in a micro-batch at most, unless more are asked for: products are large enough then.
const MICRO_BATCH: usize = 16;

impl Execution {
    /// The CPU, one block at a time.
    #[must_use]
    pub fn cpu() -> Self {
        Self::on(Compute::cpu(), None)
    }

    /// Opens a device. On a GPU `dtype` is bf16 if it is left out; the CPU computes in f32 only.
    /// `micro_batch` is the number of blocks that go through a trunk together;
    /// one on the CPU and as many as fit, 16 at most, on a device if it is left out.
    ///
    /// # Errors
    /// If a CUDA device was asked for and this build has no CUDA or there is no such device; if the
    /// CPU is to compute in bf16, or by tiles that it does not have.
    pub fn open(
        choice: DeviceChoice,
        dtype: Option<ComputeType>,
        micro_batch: Option<usize>,
    ) -> Result<Self, Error> {
        let cuda = |ordinal| match dtype {
            Some(ComputeType::F32) => Compute::cuda_in(ordinal, DType::F32),
            Some(ComputeType::Bf16) | None => Compute::cuda_in(ordinal, DType::BF16),
            Some(ComputeType::F32ByTiles) => {
                Err(moeprune_model::Error::NoCuda("it has no tiles of a CPU".to_owned()))
            }
        };
        let cpu = || match dtype {
            Some(ComputeType::Bf16) => {
                Err(Error::refused("the CPU computes in f32", Remedy::DefaultType))
            }
            Some(ComputeType::F32ByTiles) => Ok(Compute::cpu_by_tiles()?),
            Some(ComputeType::F32) | None => Ok(Compute::cpu()),
        };
        let compute = match choice {
            DeviceChoice::Cpu => cpu()?,
            DeviceChoice::Cuda(ordinal) => cuda(ordinal)?,
            DeviceChoice::Auto => match cuda(0) {
                Err(moeprune_model::Error::NoCuda(_)) => cpu()?,
                opened => opened?,
            },
        };
        #[cfg(feature = "cuda")]
        {
            let kernels = match compute.device().as_cuda_device() {
                Err(_) => None,
                Ok(device) => {
                    let stream = device.cuda_stream();
                    Some(moeprune_score::cuda::ScoreKernels::load(stream.context())?)
                }
            };
            Ok(Self { kernels, ..Self::on(compute, micro_batch) })
        }
        #[cfg(not(feature = "cuda"))]
        Ok(Self::on(compute, micro_batch))
    }

    /// On the CPU as given, through the code that devices take if its type is not f32.
    #[must_use]
    pub fn on(compute: Compute, micro_batch: Option<usize>) -> Self {
        let on_cpu = compute.device().is_cpu();
        Self {
            compute,
            micro_batch,
            holds_layer: false,
            rates: if on_cpu { Rates::default() } else { Rates::of_gpu() },
            max_memory: None,
            streams_experts: false,
            #[cfg(feature = "cuda")]
            kernels: None,
        }
    }

    /// The same on a machine that is so fast. By default it is taken to be as [`Rates::default`], a GPU to compute
    /// 200 TFLOP/s. No result depends on it: only times that are announced, and what a repair of experts keeps in
    /// files instead of computing it again.
    #[must_use]
    pub fn with_rates(self, rates: Rates) -> Self {
        Self { rates, ..self }
    }

    /// The same with at most so many bytes of memory: a run that needs more is refused.
    #[must_use]
    pub fn with_max_memory(self, max_memory: Option<u64>) -> Self {
        Self { max_memory, ..self }
    }

    /// How many bytes of memory a run may take, if that was said.
    #[must_use]
    pub fn max_memory(&self) -> Option<u64> {
        self.max_memory
    }

    /// The same, which reads experts when they are needed where a model answers questions, even if the whole model
    /// fits into memory ([`AnsweringNeed`](crate::AnsweringNeed)). It changes no answer.
    #[must_use]
    pub fn with_streamed_experts(self, streams_experts: bool) -> Self {
        Self { streams_experts, ..self }
    }

    /// Whether experts are read when they are needed even where the whole model fits.
    #[must_use]
    pub fn streams_experts(&self) -> bool {
        self.streams_experts
    }

    /// How fast the machine is taken to be.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// The device and the type of hidden states.
    #[must_use]
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Blocks that go through a trunk together.
    #[must_use]
    pub fn micro_batch(&self) -> usize {
        self.micro_batch.unwrap_or(1)
    }

    /// Whether the device has room for all experts of a layer.
    pub(crate) fn holds_layer(&self) -> bool {
        self.holds_layer
    }

    /// The kernels that score and mask on this device.
    #[cfg(feature = "cuda")]
    pub(crate) fn kernels(&self) -> Option<&moeprune_score::cuda::ScoreKernels> {
        self.kernels.as_ref()
    }

    /// Whether the model runs on the CPU.
    #[must_use]
    pub fn is_on_cpu(&self) -> bool {
        self.compute.device().is_cpu()
    }

    /// The device and the type as text, for example `cuda:0 bf16`.
    #[must_use]
    pub fn name(&self) -> String {
        let dtype = self.compute.arithmetic();
        match self.compute.device().location() {
            candle_core::DeviceLocation::Cpu => format!("cpu {dtype}"),
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id} {dtype}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id} {dtype}"),
        }
    }

    /// What the result of a run depends on. On the CPU in f32 micro-batches change nothing.
    pub(crate) fn identity(&self) -> String {
        let dtype = self.compute.arithmetic();
        match self.compute.device() {
            device if device.is_cpu() => format!("cpu {dtype}"),
            _ => format!("cuda {dtype}, micro-batch {}", self.micro_batch()),
        }
    }

    /// The same for calibration blocks of a given number and length: sets the micro-batch if it was
    /// left open. Says what memory the run will need.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if the device has less; if that is more than [`max_memory`](Self::max_memory).
    pub fn for_blocks(
        &self,
        model: &dyn Model,
        tag: &CorpusTag,
        kind: RunKind,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        let free = self.compute.free_memory()?;
        let host = MemoryNeed::of(model, tag.into(), kind);
        let available = AvailableMemory::now(self.max_memory);
        host.check(free.is_some(), self.max_memory)?;
        progress.note(&host.line(free.is_some(), available.as_ref()));
        self.say_where_codes_are_decoded(model, progress);
        let Some(free) = free else { return Ok(self.clone()) };
        let need =
            |micro_batch| DeviceNeed::of(model, tag, kind, self.compute.dtype(), micro_batch);
        let most = MICRO_BATCH.min((tag.samples as usize).next_power_of_two());
        let micro_batch = match self.micro_batch {
            Some(asked) => asked,
            None => (0..=most.ilog2())
                .rev()
                .map(|power| 1 << power)
                .find(|&size| need(size).total() <= free)
                .unwrap_or(1),
        };
        let needed = need(micro_batch);
        if needed.total() > free {
            return Err(Error::DeviceMemory {
                needed: needed.total(),
                free,
                remedy: needed.remedy(free, need),
            });
        }
        progress.note(&needed.line(free));
        let holds_layer = needed.total_with_layer() <= free;
        Ok(Self { micro_batch: Some(micro_batch), holds_layer, ..self.clone() })
    }

    /// Says that codes are decoded on the host, if the model has some and runs on a device.
    pub fn say_where_codes_are_decoded(&self, model: &dyn Model, progress: &mut dyn Progress) {
        if self.compute.holds_stored() && model.has_weights_in_codes() {
            progress.note(&format!(
                "weights in codes are decoded on the host and brought to {} as {}; codes are zeroed on \
                 the host",
                self.name(),
                self.compute.decoded_type()
            ));
        }
    }

    /// Where the experts of a model are while it answers questions: of a model, or of one of shape `spec` that is made
    /// of it.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if a device has less memory than the whole needs and experts are not to be
    /// [streamed](Self::with_streamed_experts); on the CPU, if there is too little even if they are.
    pub fn place_experts(
        &self,
        model: &dyn Model,
        spec: &ModelSpec,
    ) -> Result<(AnsweringNeed, ExpertPlace), Error> {
        let need = AnsweringNeed::of(model, spec, &self.compute);
        let Some(free) = self.compute.free_memory()? else {
            let available = AvailableMemory::now(self.max_memory);
            let place = need.place(available.as_ref(), self.streams_experts)?;
            return Ok((need, place));
        };
        let needed = need.trunks + need.experts + need.rest;
        if !self.streams_experts && free < needed {
            return Err(Error::DeviceMemory { needed, free, remedy: Remedy::NotOneDevice });
        }
        let free = AvailableMemory { bytes: free, limit: MemoryLimit::Device };
        let available = self.streams_experts.then_some(&free);
        let place = need.place(available, self.streams_experts)?;
        Ok((need, place))
    }
}

impl Default for Execution {
    fn default() -> Self {
        Self::cpu()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        let check = |text: &str, want: Option<DeviceChoice>| {
            assert_eq!(text.parse().ok(), want, "{text}");
        };
        check("auto", Some(DeviceChoice::Auto));
        check("cpu", Some(DeviceChoice::Cpu));
        check("cuda", Some(DeviceChoice::Cuda(0)));
        check("cuda:0", Some(DeviceChoice::Cuda(0)));
        check("cuda:12", Some(DeviceChoice::Cuda(12)));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cpu:0"] {
            check(bad, None);
        }
    }

    #[test]
    fn names_say_device_and_type() {
        assert_eq!(Execution::cpu().name(), "cpu f32");
        let half = Execution::on(Compute::cpu_in(DType::BF16), Some(4));
        assert_eq!((half.name(), half.identity()), ("cpu bf16".into(), "cpu bf16".into()));
    }
}

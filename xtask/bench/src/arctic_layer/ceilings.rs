//! What the machine does at most: copies and products of the shapes that pruning runs.

use candle_core::{Device, Tensor};
use moeprune_core::{LinearId, MlpProjection, ModelSpec};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    ceiling::{Ceiling, best},
    disk,
    layer::Layer,
};
use moeprune::{
    Error, Execution,
    timed::{PartTimes, synchronize},
};

/// Bytes that are copied at a time.
const COPIED: usize = 256 << 20;
/// Bytes that one thread copies at a time.
const PIECE: usize = 1 << 20;

/// All of a machine, for what `parts` took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ceilings {
    /// Copies in the memory that masks work on; each byte counts twice, read and written.
    pub(super) copy: Ceiling,
    /// Page-locked memory to the device and back; `None` on the CPU.
    pub(super) to_device: Option<Ceiling>,
    pub(super) to_host: Option<Ceiling>,
    pub(super) products: Vec<Product>,
    pub(super) disk_read: Ceiling,
    pub(super) disk_write: Ceiling,
}

/// A matrix product.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Product {
    #[serde(flatten)]
    pub(super) ceiling: Ceiling,
    /// FLOP of this shape in one pass of all tokens through the layer.
    pub(super) in_a_pass: u64,
}

impl Ceilings {
    pub(super) fn measure(
        layer: &Layer,
        parts: &PartTimes,
        execution: &Execution,
    ) -> Result<Self, Error> {
        let disk_read = disk::read(&layer.files())?;
        let disk_write = disk::write(layer.dir(), layer.bytes())?;
        #[cfg(feature = "cuda")]
        let links = super::cuda::links(execution)?;
        #[cfg(not(feature = "cuda"))]
        let links: Option<[Ceiling; 3]> = None;
        let (copy, to_device, to_host) = match links {
            Some([copy, up, down]) => (copy, Some(up), Some(down)),
            None => (copy()?, None, None),
        };
        let products = products(layer, parts, execution)?;
        Ok(Self { copy, to_device, to_host, products, disk_read, disk_write })
    }

    /// Seconds that a pass's products would take at their ceilings.
    pub(super) fn pass_seconds(&self) -> f64 {
        self.products.iter().map(|p| p.in_a_pass as f64 / p.ceiling.rate).sum()
    }
}

/// Host memory to host memory on all threads.
fn copy() -> Result<Ceiling, Error> {
    let (from, mut to) = (vec![1_u8; COPIED], vec![0_u8; COPIED]);
    let seconds = best(&mut || {
        to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| {
            to.copy_from_slice(from);
        });
        Ok(())
    })?;
    let how = "256 MiB on all threads, read and written";
    Ok(Ceiling::bytes("memory copy", how, 2 * COPIED as u64, seconds))
}

/// The shapes that a pass consists of. Linears that read the same are run as one.
fn products(
    layer: &Layer,
    parts: &PartTimes,
    execution: &Execution,
) -> Result<Vec<Product>, Error> {
    let spec = layer.checkpoint.spec();
    let tokens = layer.calibration.blocks.tokens();
    let together = parts.micro_batch * layer.calibration.blocks.sequence_len();
    let trunk_rows = together.min(tokens as usize);
    let routed: u64 = parts.expert_tokens.iter().sum();
    let busy = parts.expert_tokens.iter().filter(|&&n| n > 0).count().max(1);
    let expert_rows = (routed as usize / busy).clamp(1, parts.expert_rows);
    let mut products = Vec::new();
    for (name, cols, outputs, of_expert) in shapes(spec) {
        let (rows, tokens) = if of_expert { (expert_rows, routed) } else { (trunk_rows, tokens) };
        let seconds = product(execution, rows, cols, outputs)?;
        let flop = |rows: u64| 2 * rows * (cols * outputs) as u64;
        let how = format!("[{rows}, {cols}] x [{cols}, {outputs}], {}", execution.name());
        let ceiling = Ceiling::new(name, &how, "FLOP", flop(rows as u64), seconds);
        products.push(Product { ceiling, in_a_pass: flop(tokens) });
    }
    Ok(products)
}

/// Name, inputs and outputs of the products of a layer, and whether they are an expert's.
fn shapes(spec: &ModelSpec) -> Vec<(&'static str, usize, usize, bool)> {
    let linears = spec.linears(0);
    let mut shapes: Vec<(&'static str, usize, usize, bool)> = Vec::new();
    for linear in linears.iter().filter(|l| l.id.expert().is_none_or(|e| e == 0)) {
        // The router's product is small and in f32.
        if !linear.prunable {
            continue;
        }
        let name = match linear.reads {
            LinearId::Expert(_, MlpProjection::Down) => "product: expert down",
            LinearId::Expert(..) => "product: expert gate and up",
            LinearId::Residual(MlpProjection::Down) => "product: residual down",
            LinearId::Residual(_) => "product: residual gate and up",
            LinearId::Attention(moeprune_core::AttentionProjection::Output) => {
                "product: attention output"
            }
            _ => "product: attention in",
        };
        match shapes.iter_mut().find(|shape| shape.0 == name) {
            Some(shape) => shape.2 += linear.rows,
            None => shapes.push((name, linear.cols, linear.rows, linear.id.expert().is_some())),
        }
    }
    shapes
}

fn product(
    execution: &Execution,
    rows: usize,
    inputs: usize,
    outputs: usize,
) -> Result<f64, Error> {
    let (device, dtype) = (execution.compute().device(), execution.compute().dtype());
    let random = |(rows, cols)| noise(rows, cols)?.to_dtype(dtype)?.to_device(device);
    let x = random((rows, inputs))?;
    // Weights are laid out as they are run: as stored, or on the CPU in f32 the other way round.
    let weight = match execution.compute().holds_stored() {
        true => random((outputs, inputs))?.t()?,
        false => random((inputs, outputs))?,
    };
    best(&mut || {
        x.matmul(&weight)?;
        Ok(synchronize(device)?)
    })
}

/// Numbers between -1 and 1 that look random: how fast a product is can depend on what is multiplied.
fn noise(rows: usize, cols: usize) -> candle_core::Result<Tensor> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let values: Vec<f32> = (0..rows * cols).map(|_| next()).collect();
    Tensor::from_vec(values, (rows, cols), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moeprune_synthetic::{Published, Reduction, Shape};

    #[test]
    fn products_are_all_of_a_layer_but_its_router() {
        let reduction = Reduction { layers: Some(1), ..Reduction::default() };
        let shape = Shape::new(Published::Arctic, &reduction).unwrap();
        let shapes = shapes(shape.spec());
        let find = |name: &str| {
            let shape = shapes.iter().find(|shape| shape.0.ends_with(name)).unwrap();
            (shape.1, shape.2)
        };
        assert_eq!(find("expert gate and up"), (7168, 9728));
        assert_eq!(find("expert down"), (4864, 7168));
        assert_eq!(find("residual gate and up"), (7168, 14_336));
        assert_eq!(find("residual down"), (7168, 7168));
        assert_eq!(find("attention in"), (7168, 9216));
        assert_eq!(find("attention output"), (7168, 7168));
        assert_eq!(shapes.len(), 6);
    }
}

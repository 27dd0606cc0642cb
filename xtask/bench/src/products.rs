//! `cargo xtask bench-products`: experts as `observe` reads and runs them, beside their products alone.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use moeprune::{
    checkpoint::{Access, Checkpoint},
    engine::Finite,
};
use moeprune_capture::{StoredLayer, for_each_loaded_expert};
use moeprune_cli::{Terminal, positive};
use moeprune_core::{
    LinearId, MlpProjection, ModelSpec, StageError, StoredWeight, TensorId, TensorSource,
};
use moeprune_linalg::{
    Matrix, PackedElements, PackedWeights, Update, has_tiles, multiply_in_parallel,
    multiply_in_tiles, multiply_packed,
};
use moeprune_model::{Compute, NoSink};
use moeprune_synthetic::{Options, Published, Reduction, Shape, write_checkpoint};

use crate::{spent::Spent, synthesis::show};

/// Time experts as `observe` reads and runs them, beside the same products alone
///
/// A layer of experts of random bf16 weights is written and read again, from the page cache. Each expert is run on its
/// tokens while the next is read and packed, some rows at a time, as `observe` does. Beside it stand the same with each matrix
/// read as a whole, checked and then packed, and its products alone, by the crate `gemm` with weights widened
/// and transposed before, and by moeprune's kernels with weights packed before, where the processor has tiles (AMX) in these too. Processor time is of all threads; what
/// shares the machine does not count in it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask bench-products
  cargo xtask bench-products --shape qwen3-30b-a3b --tokens 32,512 --rounds 9")]
pub(crate) struct ProductsArgs {
    /// Which shapes [default: all of them]
    #[arg(long, value_name = "SHAPE", value_delimiter = ',')]
    shape: Vec<String>,
    /// Tokens of each expert
    #[arg(long, value_name = "T", value_delimiter = ',', value_parser = positive, default_values_t = [32, 128, 512, 4096])]
    tokens: Vec<usize>,
    /// How often everything is measured, in turns; the medians count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    rounds: usize,
    /// Folder for the experts [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Experts of a published model, of all widths divided by `scale`.
struct Experts {
    published: &'static str,
    scale: usize,
    count: usize,
}

const SHAPES: [Experts; 4] = [
    Experts { published: "qwen3-30b-a3b", scale: 1, count: 32 },
    Experts { published: "glm-4.5-air", scale: 1, count: 12 },
    Experts { published: "mixtral-8x7b", scale: 4, count: 8 },
    Experts { published: "arctic", scale: 1, count: 4 },
];
/// Tokens that go through an expert together, as in `observe`.
const TOGETHER: usize = 512;
/// Experts that are read before what is counted: two are held at a time.
const BEFORE: usize = 2;

/// Measures and prints.
pub(crate) fn measure(args: &ProductsArgs, terminal: &mut Terminal) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    fs::create_dir_all(&dir)?;
    line!(
        "                      GFLOP/s of wall time            of processor time          faults per expert"
    )?;
    line!(
        "expert        tokens  gemm  packed  by rows  whole    of gemm  of packed  whole    by rows  whole{}",
        if has_tiles() { "    packed ones in tiles, GFLOP/s" } else { "" }
    )?;
    for shape in &SHAPES {
        if !args.shape.is_empty() && args.shape.iter().all(|name| name != shape.published) {
            continue;
        }
        let path = dir.join(shape.published);
        shape.write(&path, terminal)?;
        let layer = Layer::open(&path)?;
        for &tokens in &args.tokens {
            layer.measure(tokens, args.rounds)?;
        }
    }
    Ok(())
}

impl Experts {
    fn write(&self, path: &Path, terminal: &mut Terminal) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let mut known = Published::ALL.iter().copied();
        let published = known.find(|model| model.name() == self.published);
        let reduction = Reduction {
            layers: Some(2), // the first of some has no experts
            experts: Some(self.count),
            vocab: Some(512),
            scale: self.scale,
        };
        let shape = Shape::new(published.context("a published model")?, &reduction)?;
        let options = Options::default();
        write_checkpoint(path, &shape, &options, &mut |step| show(step, terminal))?;
        Ok(())
    }
}

/// A matrix of an expert, ready for products.
struct Ready {
    /// `[inputs, outputs]`
    transposed: Vec<f32>,
    packed: PackedWeights,
}

/// Experts, stored and ready.
pub(crate) struct Layer {
    checkpoint: Checkpoint,
    number: usize,
    count: usize,
    /// Width of the experts and of what they read.
    inner: usize,
    width: usize,
    ready: Vec<[Ready; 2]>,
}

impl Layer {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open_by(path, None, Access::Read)?;
        let spec = checkpoint.spec();
        let number = (0..spec.layers.len()).find(|&layer| spec.moe_of(layer).is_some());
        let number = number.context("a layer has experts")?;
        let moe = spec.moe_of(number).context("the layer has experts")?;
        let (count, inner, width) = (moe.experts, moe.expert.inner, moe.expert_width(spec.hidden));
        let ready = Vec::new();
        let mut layer = Self { checkpoint, number, count, inner, width, ready };
        for expert in 0..count.min(8) {
            let into = layer.ready(expert, &[MlpProjection::Gate, MlpProjection::Up], width)?;
            let down = layer.ready(expert, &[MlpProjection::Down], inner)?;
            layer.ready.push([into, down]);
        }
        Ok(layer)
    }

    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(crate) fn spec(&self) -> &ModelSpec {
        self.checkpoint.spec()
    }

    /// The layer that the experts are of.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// GFLOP per processor second of an expert's products alone, by packed weights.
    pub(crate) fn packed_rate(&self, tokens: usize) -> Result<f64> {
        let (input, hidden) = (uniform(tokens * self.width), uniform(tokens * self.inner));
        let spent = self.products(tokens, &input, &hidden, packed)?;
        Ok(self.operations(tokens) / spent.processor / 1e9)
    }

    /// Floating-point operations of an expert's products.
    fn operations(&self, tokens: usize) -> f64 {
        6.0 * (tokens * self.inner * self.width) as f64
    }

    fn ready(&self, expert: usize, parts: &[MlpProjection], inputs: usize) -> Result<Ready> {
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for &part in parts {
            let id = TensorId::linear(self.number, LinearId::Expert(expert, part));
            let weight = self.checkpoint.weight(id).map_err(anyhow::Error::from_boxed)?;
            values.extend(weight.to_f32());
            bytes.extend_from_slice(weight.main().bytes());
        }
        let outputs = values.len() / inputs;
        let mut transposed = vec![0.0; values.len()];
        for (j, row) in values.chunks_exact(inputs).enumerate() {
            for (k, value) in row.iter().enumerate() {
                transposed[k * outputs + j] = *value;
            }
        }
        let mut packed = PackedWeights::new(PackedElements::Bf16, outputs, inputs, Vec::new());
        packed.fill(|outputs, panel| {
            panel.put_bf16(0, &bytes[2 * outputs.start * inputs..2 * outputs.end * inputs]);
            anyhow::Ok(())
        })?;
        Ok(Ready { transposed, packed })
    }

    fn measure(&self, tokens: usize, rounds: usize) -> Result<()> {
        let input = uniform(tokens * self.width);
        let hidden = uniform(tokens * self.inner);
        let (mut rows, mut in_tiles) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let gemm = self.products(tokens, &input, &hidden, gemm)?;
            let packed = self.products(tokens, &input, &hidden, packed)?;
            let by_rows = self.run(&Finite(&self.checkpoint), tokens, &input)?;
            let whole = self.run(&Whole(Finite(&self.checkpoint)), tokens, &input)?;
            let tiles = has_tiles().then(|| self.products(tokens, &input, &hidden, tiles));
            if round > 0 {
                rows.push([gemm, packed, by_rows, whole]);
                in_tiles.extend(tiles.transpose()?);
            }
        }
        let flop = self.operations(tokens);
        let rate = |of: usize| median(rows.iter().map(|row| flop / row[of].wall / 1e9));
        let share = |of: usize, run: usize| {
            median(rows.iter().map(|row| 100.0 * row[of].processor / row[run].processor))
        };
        let faults = |of: usize| median(rows.iter().map(|row| row[of].faults));
        let tiles = match in_tiles.is_empty() {
            true => String::new(),
            false => {
                format!("    {:>29.0}", median(in_tiles.iter().map(|run| flop / run.wall / 1e9)))
            }
        };
        line!(
            "{:5}×{:<5}  {tokens:>7}  {:>4.0}  {:>6.0}  {:>7.0}  {:>5.0}    {:>5.0} %  {:>7.0} %  {:>3.0} %    {:>7.0}  {:>5.0}{tiles}",
            self.inner,
            self.width,
            rate(0),
            rate(1),
            rate(2),
            rate(3),
            share(0, 2),
            share(1, 2),
            share(1, 3),
            faults(2),
            faults(3)
        )?;
        Ok(())
    }

    /// What the products of an expert take.
    fn products(
        &self,
        tokens: usize,
        input: &[f32],
        hidden: &[f32],
        product: impl Fn(&[f32], &Ready, &mut [f32]),
    ) -> Result<Spent> {
        let together = tokens.min(TOGETHER);
        let mut out = vec![0.0; together * (2 * self.inner).max(self.width)];
        let begin = Spent::now()?;
        for ready in &self.ready {
            for (x, matrix, width) in
                [(input, &ready[0], self.width), (hidden, &ready[1], self.inner)]
            {
                for x in x.chunks(together * width) {
                    let outputs = matrix.packed.outputs();
                    let out = &mut out[..x.len() / width * outputs];
                    product(x, matrix, out);
                    black_box(out);
                }
            }
        }
        Ok(Spent::now()?.since(begin).each(self.ready.len()))
    }

    /// What an expert takes that is read and run.
    fn run(&self, source: &dyn TensorSource, tokens: usize, input: &[f32]) -> Result<Spent> {
        let compute = Compute::cpu();
        let together = tokens.min(TOGETHER);
        let pieces = input.chunks(together * self.width).map(|piece| {
            let shape = (piece.len() / self.width, self.width);
            candle_core::Tensor::from_slice(piece, shape, compute.device())
        });
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        let experts: Vec<usize> = (0..self.count).collect();
        let mut begin = None;
        let (spec, layer) = (self.spec(), self.number);
        let stored = StoredLayer { source, spec, layer, compute: &compute };
        for_each_loaded_expert(stored, &experts, |expert| {
            for piece in &pieces {
                black_box(expert.forward(piece, &mut NoSink)?);
            }
            // The first ones find no memory that they can take over.
            if expert.index() + 1 == BEFORE {
                begin = Some(Spent::now()?);
            }
            Ok::<(), anyhow::Error>(())
        })?;
        let begin = begin.context("there are experts")?;
        Ok(Spent::now()?.since(begin).each(self.count - BEFORE))
    }
}

/// A source that reads each weight as a whole.
struct Whole<'a>(Finite<'a>);

impl TensorSource for Whole<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        self.0.weight(id)
    }
}

/// The product that there was before: weights `[inputs, outputs]` in f32, by the crate `gemm`.
fn gemm(x: &[f32], matrix: &Ready, out: &mut [f32]) {
    let (inputs, outputs) = (matrix.packed.inputs(), matrix.packed.outputs());
    let (x, weights) = (Matrix::dense(x, inputs), Matrix::dense(&matrix.transposed, outputs));
    multiply_in_parallel(out, Update::Set, x, weights);
}

/// Products by moeprune's kernels.
fn packed(x: &[f32], matrix: &Ready, out: &mut [f32]) {
    multiply_packed(x.len() / matrix.packed.inputs(), x, &matrix.packed, out);
}

/// The same in tiles.
fn tiles(x: &[f32], matrix: &Ready, out: &mut [f32]) {
    multiply_in_tiles(x.len() / matrix.packed.inputs(), x, &matrix.packed, out);
}

/// Numbers from −1 to 1.
fn uniform(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

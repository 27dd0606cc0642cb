//! Filling an observation while a layer runs.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, OnceLock},
};

use candle_core::Tensor;
use moeprune_core::{
    InputHessian, InputMoments, LayerObservation, LinearId, LinearShape, ModelSpec, RoutedMass,
    RoutingSums,
    observation::{ExactLayer, ExactSums, Shape, Statistics as _, Values},
};
use moeprune_model::{ActivationSink, Router, RoutingChoice};

use crate::{
    Error,
    activations::{OutputSums, add_column_squares, add_outputs},
    hessians::Hessians,
    mass::MassSums,
    sums_check::{Flaw, check_routing},
};

/// What to keep of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what there is to keep")]
pub struct ObserverOptions {
    /// The router's choices and the sizes of the experts' outputs.
    pub routing: bool,
    /// The squared inputs of every Linear.
    pub inputs: bool,
    /// The products of all pairs of inputs too, for [`LayerObserver::hessian_of`]. They are no part
    /// of an observation: of Linears with thousands of inputs they take more room than weights.
    pub hessians: bool,
}

impl Default for ObserverOptions {
    /// Everything that an observation has.
    fn default() -> Self {
        Self { routing: true, inputs: true, hessians: false }
    }
}

/// The sink that sums up what one layer does.
///
/// Everything is summed by one thread in the order in which the layer reports it, so the sums do
/// not depend on how many threads computed the activations. Those of a block are added up on their own, and to
/// those of other blocks exactly, so on the CPU the sums do not depend on which other blocks the process runs
/// either ([`finish_exact`](Self::finish_exact)). On a device the tokens of one call are summed together.
#[derive(Debug, Clone)]
pub struct LayerObserver {
    layer: usize,
    /// Width of what an expert writes.
    width: usize,
    routing: Option<ExactSums<RoutingSums>>,
    /// The expert and the block whose outputs were summed last.
    output: Option<(usize, u64)>,
    inputs: Option<BTreeMap<LinearId, Site>>,
    /// The input site of each Linear of the layer.
    reads: BTreeMap<LinearId, LinearId>,
    hessians: Option<Hessians>,
    mass: Option<MassSums>,
    rows: Rows,
}

#[derive(Debug, Clone)]
struct Site {
    moments: ExactSums<InputMoments>,
    /// The last block that reached it.
    block: Option<u64>,
    /// The moments so far, if they were looked at since they last changed.
    rounded: OnceLock<InputMoments>,
}

impl Site {
    fn enter(&mut self, block: u64) {
        self.rounded.take();
        if self.block != Some(block) {
            self.moments.close();
            self.moments.open_mut().calls += 1;
            self.block = Some(block);
        }
    }
}

/// The blocks that the rows of the current activations are of.
#[derive(Debug, Clone)]
enum Rows {
    /// All of one block.
    Of(u64),
    /// So many of each block, ascending.
    Each(Vec<(u64, usize)>),
}

impl Rows {
    /// The rows of each block, of `rows` in all; `Err` with the number that is expected.
    fn of_blocks(&self, rows: usize) -> Result<Vec<(u64, Range<usize>)>, usize> {
        match self {
            Self::Of(block) => Ok(vec![(*block, 0..rows)]),
            Self::Each(blocks) => {
                let mut end = 0;
                let ranges = blocks.iter().map(|&(block, rows)| {
                    end += rows;
                    (block, end - rows..end)
                });
                let ranges: Vec<_> = ranges.collect();
                if end == rows { Ok(ranges) } else { Err(end) }
            }
        }
    }
}

impl LayerObserver {
    /// An observer for `layer` of a model. Every input site of the layer is there from the start,
    /// so one that no token reaches ends up with zero tokens, not absent.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn new(spec: &ModelSpec, layer: usize, options: ObserverOptions) -> Result<Self, Error> {
        let layers = spec.layers.len();
        let this = spec.layers.get(layer).ok_or(Error::NoSuchLayer { layer, layers })?;
        let routing = this.moe().filter(|_| options.routing);
        let width = this.moe().map_or(spec.hidden, |moe| moe.expert_width(spec.hidden));
        let linears = spec.linears(layer);
        let inputs = options.inputs.then(|| {
            let zero = |l: &LinearShape| ExactSums::new(InputMoments::new(l.cols));
            let new =
                |l: &LinearShape| Site { moments: zero(l), block: None, rounded: OnceLock::new() };
            linears.iter().map(|l| (l.reads, new(l))).collect()
        });
        Ok(Self {
            layer,
            width,
            routing: routing.map(|moe| {
                ExactSums::new(RoutingSums::with_outputs(moe.experts, moe.top_k, width))
            }),
            output: None,
            inputs,
            reads: linears.iter().map(|linear| (linear.id, linear.reads)).collect(),
            hessians: options.hessians.then(Hessians::default),
            mass: None,
            rows: Rows::Of(0),
        })
    }

    /// Also sums what share of the softmax a layer without some of its experts routes, and what share its
    /// router with all of them, `unpruned`, would have routed on the same inputs.
    pub fn compare_mass(&mut self, unpruned: Router) {
        self.mass = Some(MassSums::new(Arc::new(unpruned)));
    }

    /// That mass per token, so far; `None` if it is not compared, or no token came.
    #[must_use]
    pub fn routed_mass(&self) -> Option<RoutedMass> {
        self.mass.as_ref().and_then(MassSums::means)
    }

    /// Says that another calibration block begins, of which all rows are that follow. A Linear's calls are the
    /// blocks that reached it, however often the layer reports it within one.
    pub fn begin_block(&mut self) {
        let last = match &self.rows {
            Rows::Of(block) => *block,
            Rows::Each(blocks) => blocks.last().map_or(0, |(block, _)| *block),
        };
        self.rows = Rows::Of(last + 1);
    }

    /// Says which blocks, from 0 and ascending, the rows of what follows are of, and how many of each. For a
    /// caller that runs several blocks at once, or an expert's tokens of all blocks before the next expert's: for
    /// each site the blocks must still ascend from call to call.
    pub fn at_rows(&mut self, blocks: impl IntoIterator<Item = (usize, usize)>) {
        self.rows =
            Rows::Each(blocks.into_iter().map(|(block, rows)| (block as u64 + 1, rows)).collect());
    }

    /// The moments, so far, of the input that a Linear reads; `None` if inputs are not observed or
    /// the layer has no such Linear.
    ///
    /// # Errors
    /// [`Error::InputNotFinite`].
    pub fn input_of(&self, linear: LinearId) -> Result<Option<&InputMoments>, Error> {
        let Some(&site) = self.reads.get(&linear) else { return Ok(None) };
        let sums = self.inputs.as_ref().and_then(|inputs| inputs.get(&site));
        match sums.map(|site| site.rounded.get_or_init(|| site.moments.rounded())) {
            Some(moments) if !moments.sum_squares.iter().all(|sum| sum.is_finite()) => {
                Err(Error::InputNotFinite { layer: self.layer, site })
            }
            moments => Ok(moments),
        }
    }

    /// The sum of `x xᵀ`, so far, of the input that a Linear reads; `None` if that is not observed
    /// or no token came.
    ///
    /// # Errors
    /// [`Error::InputNotFinite`].
    pub fn hessian_of(&self, linear: LinearId) -> Result<Option<&InputHessian>, Error> {
        // Squares that are finite stand on the diagonal, so the rest is.
        self.input_of(linear)?;
        let site = self.reads.get(&linear);
        Ok(self.hessians.as_ref().zip(site).and_then(|(hessians, &site)| hessians.of(site)))
    }

    /// Drops what [`hessian_of`](Self::hessian_of) gives of an expert, or, of `None`, of all that
    /// is no expert's.
    pub fn forget_hessians(&mut self, expert: Option<usize>) {
        if let Some(hessians) = &mut self.hessians {
            hessians.forget(|site| site.expert() == expert);
        }
    }

    /// The sums.
    ///
    /// # Errors
    /// As [`finish_exact`](Self::finish_exact).
    pub fn finish(self) -> Result<LayerObservation, Error> {
        Ok(self.finish_exact()?.rounded())
    }

    /// The sums before they are rounded, to be added to those of other blocks.
    ///
    /// # Errors
    /// If an activation was not finite or too large, or the routing counts do not add up.
    pub fn finish_exact(self) -> Result<ExactLayer, Error> {
        let (layer, mut finished) = (self.layer, ExactLayer::default());
        if let Some(mut routing) = self.routing {
            routing.close();
            // What could not be summed is still there.
            check_outputs(layer, routing.open())?;
            check_routing(routing.open()).map_err(|Flaw { row, expected, got }| {
                Error::Routing { layer, row, expected, got }
            })?;
            finished.routing = Some(routing);
        }
        for (site, Site { mut moments, .. }) in self.inputs.into_iter().flatten() {
            moments.close();
            if !moments.open().sum_squares.iter().all(|sum| sum.is_finite()) {
                return Err(Error::InputNotFinite { layer, site });
            }
            finished.inputs.insert(site, moments);
        }
        Ok(finished)
    }

    /// Which of some rows are of which block.
    fn rows_of(
        &self,
        rows: usize,
        what: impl Fn() -> String,
    ) -> Result<Vec<(u64, Range<usize>)>, Error> {
        let unexpected = |expected| report(self.layer, what(), format!("{expected} rows"), rows);
        self.rows.of_blocks(rows).map_err(unexpected)
    }

    fn add_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        let layer = self.layer;
        let what = || format!("input of {site}");
        let features = match &self.inputs {
            None => return Ok(()),
            Some(inputs) => inputs.get(&site).map(|sums| sums.moments.open().sum_squares.len()),
        };
        let features =
            features.ok_or_else(|| report(layer, what(), "an input site of the layer", "none"))?;
        let tokens = tokens_of(layer, input, features, what)?;
        if tokens == 0 {
            return Ok(());
        }
        let blocks = self.rows_of(tokens, what)?;
        let Some(sums) = self.inputs.as_mut().and_then(|inputs| inputs.get_mut(&site)) else {
            return Ok(());
        };
        sums.moments.open_mut().tokens += tokens as u64;
        let unread = |source| Error::Values {
            layer,
            what: format!("the input of {site}"),
            source: Box::new(source),
        };
        for (block, rows) in blocks {
            sums.enter(block);
            if input.device().is_cpu() {
                let rows = input.narrow(0, rows.start, rows.len()).map_err(unread)?;
                add_column_squares(&rows, &mut sums.moments.open_mut().sum_squares)
                    .map_err(unread)?;
            }
        }
        if !input.device().is_cpu() {
            add_column_squares(input, &mut sums.moments.open_mut().sum_squares).map_err(unread)?;
        }
        let calls = sums.moments.open().calls;
        match &mut self.hessians {
            Some(hessians) => hessians.add(site, input, calls).map_err(unread),
            None => Ok(()),
        }
    }

    fn add_routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        let layer = self.layer;
        let Some(sums) = &self.routing else { return Ok(()) };
        let (n, k) = (sums.open().experts(), choice.top_k);
        if (choice.experts, k) != (n, sums.open().top_k) {
            let expected = format!("{n} experts, top {}", sums.open().top_k);
            let got = format!("{} experts, top {k}", choice.experts);
            return Err(report(layer, "routing", expected, got));
        }
        let entries = choice.tokens * k;
        for got in [choice.indices.len(), choice.weights.len()] {
            if got != entries {
                return Err(report(layer, "routing", format!("{entries} choices"), got));
            }
        }
        let blocks = self.rows_of(choice.tokens, || "routing".to_owned())?;
        let Some(sums) = &mut self.routing else { return Ok(()) };
        sums.open_mut().tokens += choice.tokens as u64;
        for (_, rows) in blocks {
            let entries = rows.start * k..rows.end * k;
            let (chosen, weights) = (&choice.indices[entries.clone()], &choice.weights[entries]);
            add_choices(layer, sums.open_mut(), chosen, weights)?;
            sums.close_values_of_experts();
        }
        Ok(())
    }

    fn add_output(&mut self, expert: usize, output: &Tensor, gates: &[f32]) -> Result<(), Error> {
        let (layer, width) = (self.layer, self.width);
        let Some(sums) = &self.routing else { return Ok(()) };
        let what = || format!("output of expert {expert}");
        let experts = sums.open().experts();
        if expert >= experts {
            let expected = format!("an expert below {experts}");
            return Err(report(layer, what(), expected, expert));
        }
        let tokens = tokens_of(layer, output, width, what)?;
        if gates.len() != tokens {
            return Err(report(layer, what(), format!("{tokens} gates"), gates.len()));
        }
        let mut blocks = self.rows_of(tokens, what)?;
        if !output.device().is_cpu() {
            // Summed by the device, all of a call together.
            blocks = blocks.last().map(|&(block, _)| (block, 0..tokens)).into_iter().collect();
        }
        for (block, rows) in blocks {
            let unread = |source| Error::Values { layer, what: what(), source: Box::new(source) };
            let own = output.narrow(0, rows.start, rows.len()).map_err(unread)?;
            self.add_output_of(expert, block, &own, &gates[rows]).map_err(unread)?;
        }
        Ok(())
    }

    /// Adds what an expert wrote for tokens of one block.
    fn add_output_of(
        &mut self,
        expert: usize,
        block: u64,
        output: &Tensor,
        gates: &[f32],
    ) -> Result<(), candle_core::Error> {
        let (Some(sums), width) = (&mut self.routing, self.width) else { return Ok(()) };
        if self.output != Some((expert, block)) {
            if let Some((before, _)) = self.output {
                sums.close_expert(before);
            }
            self.output = Some((expert, block));
        }
        let sums = sums.open_mut();
        let outputs = OutputSums {
            sums: &mut sums.output_sums[expert * width..(expert + 1) * width],
            peak: &mut sums.output_peaks[expert],
        };
        let norms = add_outputs(output, outputs)?;
        for (norm, &gate) in norms.iter().zip(gates) {
            sums.output_norms[expert] += norm;
            sums.gated_output_norms[expert] += norm * f64::from(gate);
        }
        Ok(())
    }
}

/// Counts some tokens' choices, and sums their weights.
fn add_choices(
    layer: usize,
    sums: &mut RoutingSums,
    chosen: &[u32],
    weights: &[f32],
) -> Result<(), Error> {
    let (n, k) = (sums.experts(), sums.top_k.max(1));
    for (chosen, weights) in chosen.chunks(k).zip(weights.chunks(k)) {
        for (rank, (&expert, &weight)) in chosen.iter().zip(weights).enumerate() {
            let expert = expert as usize;
            if expert >= n {
                let expected = format!("an expert below {n}");
                return Err(report(layer, "routing", expected, expert));
            }
            sums.counts[expert] += 1;
            sums.gate_sums[expert] += f64::from(weight);
            for &other in &chosen[..rank] {
                let other = other as usize;
                if other == expert {
                    return Err(report(layer, "routing", "different experts", "one twice"));
                }
                sums.coactivation[expert * n + other] += 1;
                sums.coactivation[other * n + expert] += 1;
            }
        }
    }
    Ok(())
}

impl ActivationSink for LayerObserver {
    fn linear_input(
        &mut self,
        site: LinearId,
        input: &Tensor,
    ) -> Result<(), moeprune_model::Error> {
        if site == LinearId::Router
            && let Some(mass) = &mut self.mass
        {
            mass.add_input(input)?;
        }
        self.add_input(site, input).map_err(refuse)
    }

    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), moeprune_model::Error> {
        if let Some(mass) = &mut self.mass {
            mass.add_choice(choice);
        }
        self.add_routing(choice).map_err(refuse)
    }

    fn expert_output(
        &mut self,
        expert: usize,
        output: &Tensor,
        gates: &[f32],
    ) -> Result<(), moeprune_model::Error> {
        self.add_output(expert, output, gates).map_err(refuse)
    }
}

/// The error of a forward pass, or the observer's own if that is what ended it.
pub(crate) fn forward_error(layer: usize, error: moeprune_model::Error) -> Error {
    match error {
        moeprune_model::Error::Sink(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(source) => {
                let source = Box::new(moeprune_model::Error::Sink(source));
                Error::Forward { layer, source }
            }
        },
        source => Error::Forward { layer, source: Box::new(source) },
    }
}

fn refuse(error: Error) -> moeprune_model::Error {
    moeprune_model::Error::Sink(Box::new(error))
}

fn report(
    layer: usize,
    what: impl Into<String>,
    expected: impl ToString,
    got: impl ToString,
) -> Error {
    Error::Report { layer, what: what.into(), expected: expected.to_string(), got: got.to_string() }
}

fn tokens_of(
    layer: usize,
    tensor: &Tensor,
    features: usize,
    what: impl Fn() -> String,
) -> Result<usize, Error> {
    match *tensor.dims() {
        [tokens, width] if width == features => Ok(tokens),
        ref dims => {
            Err(report(layer, what(), format!("[tokens, {features}]"), format!("{dims:?}")))
        }
    }
}

fn check_outputs(layer: usize, routing: &RoutingSums) -> Result<(), Error> {
    let rows = RoutingSums::ROWS.iter().filter(|row| row.shape == Shape::PerExpert);
    let sums: Vec<&[f64]> = rows
        .filter_map(|row| match row.of(routing) {
            Values::Floats(values) => Some(values),
            Values::Size(_) | Values::Count(_) | Values::Counts(_) => None,
        })
        .collect();
    for expert in 0..routing.experts() {
        if !sums.iter().all(|sums| sums[expert].is_finite()) {
            return Err(Error::OutputNotFinite { layer, expert });
        }
    }
    Ok(())
}

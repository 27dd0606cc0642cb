//! Which expert of each cluster survives, where that takes reading experts.

use moeprune_core::{
    ClusteredLayer, ExpertSelector, ExpertWeights, LayerPlan, LinearId, MatrixView, MlpProjection,
    Plan, StageError, Survivor, TensorId,
};

use super::router::Router;
use crate::{
    Error, Grouped, Job, Model,
    finite::Finite,
    in_codes::{check_averages, selecting},
    session::{Record, Session},
};

impl Job<'_> {
    /// Chooses the survivors that a plan leaves open. [`apply`](Self::apply) does so by itself.
    ///
    /// # Errors
    /// If an expert cannot be read or is not finite, or the selector fails.
    pub fn choose_survivors(&mut self, plan: &Plan) -> Result<Plan, Error> {
        choose_survivors_in(self, &mut Session::in_memory(), plan)
    }
}

/// [`Job::choose_survivors`] within a run: what was chosen before is not looked at again.
pub(crate) fn choose_survivors_in(
    job: &mut Job<'_>,
    session: &mut Session,
    plan: &Plan,
) -> Result<Plan, Error> {
    let Job { model, pipeline, .. } = *job;
    let progress = &mut *job.progress;
    let mut plan = plan.clone();
    let open = plan.layers.iter().filter(|layer| layer.is_open()).count();
    if open == 0 {
        return Ok(plan);
    }
    progress.begin("choosing survivors", open as u64, "layers");
    let mut done = 0;
    for layer in plan.layers.iter_mut().filter(|layer| layer.is_open()) {
        let mut chosen =
            session.chosen().find(|c| c.layer == layer.layer && c.clusters == layer.clusters);
        *layer = match chosen.take() {
            Some(chosen) => chosen.clone(),
            None => {
                if progress.should_stop() {
                    return Err(Error::Stopped);
                }
                let router = Router::read(model, layer.layer)?;
                let Grouped { selector, .. } = pipeline.experts.grouped().ok_or_else(|| {
                    Error::Request(format!(
                        "the plan leaves the survivors of layer {} open, and its way of choosing \
                         experts makes no groups; make the plan again",
                        layer.layer
                    ))
                })?;
                let chosen = select(model, router.view()?, layer.clone(), &**selector)?;
                session.record(Record::Chosen(chosen.clone()))?;
                chosen
            }
        };
        done += 1;
        progress.advance(done, &format!("layer {}", layer.layer));
    }
    progress.end();
    Ok(plan)
}

/// Asks the selector for the survivors of one layer.
pub(crate) fn select(
    model: &dyn Model,
    router: MatrixView<'_>,
    open: LayerPlan,
    selector: &dyn ExpertSelector,
) -> Result<LayerPlan, Error> {
    let layer = open.layer;
    let tokens = (!open.tokens.is_empty()).then_some(open.tokens.as_slice());
    let clustered = ClusteredLayer { layer, partition: &open.clusters, router, tokens };
    let stored = StoredExperts::new(model, layer, open.experts_before);
    let rows = RouterRows(router);
    let opaque = model.spec().has_opaque_experts();
    let experts: &dyn ExpertWeights = if opaque { &rows } else { &stored };
    let selecting = selecting(model, layer, &open.clusters, selector);
    let selector = selecting.as_deref().unwrap_or(selector);
    let survivors =
        selector.select(&clustered, experts).map_err(Error::stage("selection", layer))?;
    let plan = LayerPlan { survivors, tokens: Vec::new(), ..open };
    match check_survivors(&plan) {
        Ok(()) => check_averages(model, &plan).map(|()| plan),
        Err(problem) => Err(Error::Contract { stage: "selection", layer, problem }),
    }
}

/// The clusters are of the layer's experts, and so are the tokens.
pub(crate) fn check_clusters(plan: &LayerPlan) -> Result<(), String> {
    let (before, clustered) = (plan.experts_before, plan.clusters.experts());
    if clustered != before {
        return Err(format!("clusters cover {clustered} experts, the layer has {before}"));
    }
    for pair in plan.dropped.windows(2) {
        if pair[0] >= pair[1] {
            return Err(format!(
                "dropped experts are not ascending: {} before {}",
                pair[0], pair[1]
            ));
        }
    }
    let alone = |expert: &&usize| plan.clusters.clusters().contains(&vec![**expert]);
    if let Some(expert) = plan.dropped.iter().find(|expert| !alone(expert)) {
        return Err(format!("expert {expert} is dropped but is not alone in a cluster"));
    }
    let counted = plan.tokens.len();
    if counted != 0 && counted != before {
        return Err(format!("tokens are given for {counted} experts, the layer has {before}"));
    }
    Ok(())
}

/// Moreover, there is one survivor per cluster, each from its own, ascending.
pub(crate) fn check_survivors(plan: &LayerPlan) -> Result<(), String> {
    check_clusters(plan)?;
    let stay = plan.experts_after();
    if plan.survivors.len() != stay {
        return Err(format!("{} survivors for {stay} clusters", plan.survivors.len()));
    }
    if let Some(pair) = plan.survivors.windows(2).find(|pair| pair[0].source >= pair[1].source) {
        return Err(format!(
            "survivors are not ascending: {} before {}",
            pair[0].source, pair[1].source
        ));
    }
    for cluster in plan.clusters.clusters().iter().filter(|cluster| !plan.is_dropped(cluster)) {
        let mine = plan.survivors.iter().filter(|s| cluster.contains(&s.source)).count();
        if mine != 1 {
            return Err(format!("cluster {cluster:?} has {mine} survivors"));
        }
    }
    for survivor in &plan.survivors {
        let cluster = plan.clusters.clusters().iter().find(|c| c.contains(&survivor.source));
        if !survivor.average_of.is_empty() && Some(&survivor.average_of) != cluster {
            return Err(format!(
                "expert {} is the average of {:?}, which is not its cluster",
                survivor.source, survivor.average_of
            ));
        }
        let Survivor { source, average_of, average_weights: weights, .. } = survivor;
        if !weights.is_empty() && weights.len() != average_of.len() {
            return Err(format!(
                "expert {source} is the average of {} experts with {} weights",
                average_of.len(),
                weights.len()
            ));
        }
        let members = average_of.iter().chain([source]);
        if (!weights.is_empty() && weights.iter().all(|&weight| weight == 0))
            || members.clone().any(|expert| plan.dropped.contains(expert))
        {
            return Err(format!(
                "expert {source} is made of experts that are dropped or count for nothing"
            ));
        }
    }
    Ok(())
}

/// Stands in for the experts of a layer of which only bytes are known: of each its row of the router.
struct RouterRows<'a>(MatrixView<'a>);

impl ExpertWeights for RouterRows<'_> {
    fn parameters(&self) -> usize {
        self.0.cols()
    }

    fn read(&self, expert: usize, start: usize, out: &mut [f32]) -> Result<(), StageError> {
        if expert >= self.0.rows() {
            return Err(format!("expert {expert} of {} does not exist", self.0.rows()).into());
        }
        let row = self.0.row(expert).get(start..).and_then(|row| row.get(..out.len()));
        out.copy_from_slice(row.ok_or("a row of the router is shorter")?);
        Ok(())
    }
}

/// The experts of a layer as the model stores them.
struct StoredExperts<'a> {
    weights: Finite<'a>,
    layer: usize,
    experts: usize,
    /// Parameters of each projection, in the order of [`MlpProjection::ALL`]; 0 of one that there is not.
    projections: Vec<usize>,
}

impl<'a> StoredExperts<'a> {
    fn new(model: &'a dyn Model, layer: usize, experts: usize) -> Self {
        let of = |projection| {
            let id = TensorId::linear(layer, LinearId::Expert(0, projection));
            model.spec().part(id).map_or(0, |part| part.parameters() as usize)
        };
        let projections = MlpProjection::ALL.into_iter().map(of).collect();
        Self { weights: Finite(model), layer, experts, projections }
    }
}

impl ExpertWeights for StoredExperts<'_> {
    fn parameters(&self) -> usize {
        self.projections.iter().sum()
    }

    fn read(&self, expert: usize, start: usize, out: &mut [f32]) -> Result<(), StageError> {
        if expert >= self.experts {
            return Err(format!("expert {expert} of {} does not exist", self.experts).into());
        }
        let (mut start, mut out) = (start, out);
        for (projection, &parameters) in MlpProjection::ALL.into_iter().zip(&self.projections) {
            if start >= parameters {
                start -= parameters;
                continue;
            }
            let (here, rest) = out.split_at_mut(out.len().min(parameters - start));
            let id = TensorId::linear(self.layer, LinearId::Expert(expert, projection));
            self.weights.decode_f32(id, start, here)?;
            (start, out) = (0, rest);
        }
        if out.is_empty() {
            Ok(())
        } else {
            Err(format!("an expert has no more than {} parameters", self.parameters()).into())
        }
    }
}

//! The sums of one layer.

use std::collections::BTreeMap;

use moeprune_core::{
    InputMoments, LayerObservation, LayerSpec, LinearId, LinearShape, ModelSpec, MoeSpec,
    RoutingSums,
};
use moeprune_gguf::imatrix::Imatrix;

use super::{
    found::{Found, check_agree},
    heads, names,
};
use crate::ImatrixMismatch;

/// What an imatrix says of one layer.
pub(super) fn observe(
    imatrix: &Imatrix,
    spec: &ModelSpec,
    layer: usize,
) -> Result<LayerObservation, ImatrixMismatch> {
    let of_layer = OfLayer { imatrix, spec: &spec.layers[layer], layer };
    let linears = spec.linears(layer);
    let mut inputs = BTreeMap::new();
    let (experts, trunk): (Vec<_>, Vec<_>) =
        linears.iter().partition(|linear| linear.id.expert().is_some());
    for (site, linears) in by_site(trunk) {
        let found = of_layer.look_up(&linears, 1)?;
        if let Some(first) = found.first() {
            let mut moments = first.moments(None, imatrix.chunk_count)?;
            heads::restore(&of_layer.spec.attention, site, &mut moments.sum_squares);
            inputs.insert(site, moments);
        }
    }
    let Some(moe) = of_layer.spec.moe() else {
        return Ok(LayerObservation { routing: None, inputs });
    };
    let first: Vec<&LinearShape> =
        experts.into_iter().filter(|linear| linear.id.expert() == Some(0)).collect();
    let mut all = Vec::new();
    for (site, linears) in by_site(first) {
        let found = of_layer.look_up(&linears, moe.experts)?;
        let Some(first) = found.first() else { continue };
        for expert in 0..moe.experts {
            let moments = first.moments(Some(expert), imatrix.chunk_count)?;
            inputs.insert(site.with_expert(expert), moments);
        }
        all.extend(found);
    }
    check_agree(&all, true)?;
    let routing = routing(moe, inputs.get(&LinearId::Router), &all)?;
    Ok(LayerObservation { routing, inputs })
}

/// Linears under the site that they read.
fn by_site(linears: Vec<&LinearShape>) -> BTreeMap<LinearId, Vec<&LinearShape>> {
    let mut sites = BTreeMap::<_, Vec<_>>::new();
    for linear in linears {
        sites.entry(linear.reads).or_default().push(linear);
    }
    sites
}

struct OfLayer<'a> {
    imatrix: &'a Imatrix,
    spec: &'a LayerSpec,
    layer: usize,
}

impl<'a> OfLayer<'a> {
    /// The entries of Linears that read one vector, each once, as they agree; `matrices` are in each.
    fn look_up(
        &self,
        linears: &[&LinearShape],
        matrices: usize,
    ) -> Result<Vec<Found<'a>>, ImatrixMismatch> {
        let mut found: Vec<Found<'a>> = Vec::new();
        for linear in linears {
            for name in names::of(self.spec, linear.id) {
                let place = (self.layer, name.as_str());
                let entry = Found::look_up(self.imatrix, place, linear, matrices)?;
                let is_new = |new: &Found<'_>| found.iter().all(|old| old.tensor != new.tensor);
                if let Some(entry) = entry.filter(is_new) {
                    found.push(entry);
                }
            }
        }
        check_agree(&found, matrices > 1)?;
        Ok(found)
    }
}

/// Which experts tokens were routed to; `None` if that is not known.
fn routing(
    moe: &MoeSpec,
    router: Option<&InputMoments>,
    experts: &[Found<'_>],
) -> Result<Option<RoutingSums>, ImatrixMismatch> {
    let Some(found) = experts.first() else { return Ok(None) };
    let Some(counts) = found.tokens() else { return Ok(None) };
    let (top_k, k) = (moe.top_k, moe.top_k as u64);
    let sum = counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count));
    let got = sum.unwrap_or(u64::MAX);
    let tokens = router.map_or_else(|| got / k.max(1), |router| router.tokens);
    if tokens.checked_mul(k) != Some(got) {
        let tensor = found.tensor.clone();
        return Err(ImatrixMismatch::Routing { tensor, tokens, top_k, got });
    }
    Ok(Some(RoutingSums::counted(tokens, top_k, counts.to_vec())))
}

//! `config.json` of a pruned model.

use moeprune_core::{ModelSpec, MoeSpec};

use super::Checkpoint;
use crate::Error;

impl Checkpoint {
    /// The text of `config.json` for a model that keeps so many experts in each decoder layer, and as
    /// many layers behind them as this one.
    ///
    /// Only the value of the expert count changes, under the key (or the aliases) it had. It becomes one
    /// number if
    /// every layer with experts keeps the same, else the list of the numbers given. What is said
    /// about layers without experts matters to no reader; 0 is usual.
    ///
    /// # Errors
    /// If there is not one number for each decoder layer, or a layer would keep none, fewer than a
    /// token is routed to, or more than it has.
    pub fn config_with_experts(&self, kept_per_layer: &[usize]) -> Result<String, Error> {
        self.config_with(kept_per_layer, false)
    }

    /// The text of `config.json` for a model made of this one: as
    /// [`config_with_experts`](Self::config_with_experts), and the count of layers behind the decoder's
    /// is 0 if the model has none of those that this one has.
    ///
    /// # Errors
    /// As [`config_with_experts`](Self::config_with_experts).
    pub fn config_of(&self, pruned: &ModelSpec) -> Result<String, Error> {
        let experts = |layer: &moeprune_core::LayerSpec| layer.moe().map_or(0, |moe| moe.experts);
        let kept: Vec<usize> = pruned.layers.iter().map(experts).collect();
        self.config_with(&kept, self.spec.extra.is_some() && pruned.extra.is_none())
    }

    fn config_with(&self, kept_per_layer: &[usize], drops_extra: bool) -> Result<String, Error> {
        let bad = |reason: String| Err(Error::Experts { dir: self.dir().to_owned(), reason });
        let layers = self.spec.layers.len();
        if kept_per_layer.len() != layers {
            let got = kept_per_layer.len();
            return bad(format!("{got} expert counts for {layers} decoder layers"));
        }
        let mut of_moe_layers = Vec::new();
        for (layer, (&kept, spec)) in kept_per_layer.iter().zip(&self.spec.layers).enumerate() {
            let Some(moe) = spec.moe() else { continue };
            if let Err(problem) = check_kept(layer, moe, kept) {
                return bad(problem);
            }
            of_moe_layers.push(kept);
        }
        let value = match of_moe_layers.first() {
            Some(first) if of_moe_layers.iter().all(|kept| kept == first) => first.to_string(),
            Some(_) => format!("{kept_per_layer:?}"),
            None => return Ok(self.config.text().to_owned()),
        };
        let form = self.family().descriptor();
        let mut changes = vec![(&*form.experts.count.keys, &*value)];
        if let Some(extra) = form.extra.as_ref().filter(|_| drops_extra) {
            changes.push((&extra.count.keys, "0"));
        }
        self.config.replaced(&changes)
    }
}

/// Checks that a layer can keep so many experts.
fn check_kept(layer: usize, moe: &MoeSpec, kept: usize) -> Result<(), String> {
    if kept < moe.top_k {
        return Err(format!(
            "layer {layer} would keep {kept} {}, but each token is routed to {}; \
             keep at least that many",
            if kept == 1 { "expert" } else { "experts" },
            moe.top_k
        ));
    }
    let groups = moe.router.groups().filter(|_| kept != moe.experts);
    if let Some(problem) = groups.and_then(|g| g.check_count(kept, moe.top_k).err()) {
        return Err(format!("layer {layer}: {problem}"));
    }
    if kept > moe.experts {
        let experts = moe.experts;
        return Err(format!("layer {layer} has {experts} experts and cannot keep {kept}"));
    }
    Ok(())
}

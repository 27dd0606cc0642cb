//! `config.json` of a pruned model, and what stands beside it and names experts.

use std::{collections::BTreeMap, path::Path};

use moeprune_core::{ModelSpec, MoeSpec};

use super::{Checkpoint, decoding::QUANTIZATION};
use crate::{
    Error,
    config::Config,
    quantization::{self, Modules},
};

impl Checkpoint {
    /// The text of `config.json` for a model that keeps so many experts in each decoder layer, and as
    /// many layers behind them as this one.
    ///
    /// Only the value of the expert count changes, under the key (or the aliases) it had, and what a
    /// quantisation config says of single experts, of which the first so many are taken to stay. The
    /// count becomes one number if
    /// every layer with experts keeps the same, else the list of the numbers given. What is said
    /// about layers without experts matters to no reader; 0 is usual.
    ///
    /// # Errors
    /// If there is not one number for each decoder layer, or a layer would keep none, fewer than a
    /// token is routed to, or more than it has.
    pub fn config_with_experts(&self, kept_per_layer: &[usize]) -> Result<String, Error> {
        let first = |layer: usize, expert: usize| {
            let all = self.spec.moe_of(layer).map_or(0, |moe| moe.experts);
            (expert < kept_per_layer.get(layer).copied().unwrap_or(all)).then_some(expert)
        };
        self.config_with(kept_per_layer, false, &first)
    }

    /// The text of `config.json` for a model made of this one: as
    /// [`config_with_experts`](Self::config_with_experts), the count of layers behind the decoder's
    /// is 0 if the model has none of those that this one has, and what a quantisation config says of
    /// single modules it says of the same modules still. `index_of` says the index there of expert `1`
    /// of layer `0`, or that it is gone.
    ///
    /// # Errors
    /// As [`config_with_experts`](Self::config_with_experts), and if a pattern in a quantisation config
    /// cannot be read.
    pub fn config_of(
        &self,
        pruned: &ModelSpec,
        index_of: &dyn Fn(usize, usize) -> Option<usize>,
    ) -> Result<String, Error> {
        let experts = |layer: &moeprune_core::LayerSpec| layer.moe().map_or(0, |moe| moe.experts);
        let kept: Vec<usize> = pruned.layers.iter().map(experts).collect();
        let drops_extra = self.spec.extra.is_some() && pruned.extra.is_none();
        self.config_with(&kept, drops_extra, index_of)
    }

    /// The files beside `config.json` that say how modules are quantised, by name, with their texts for
    /// a model made of this one, in which `index_of` is as for [`config_of`](Self::config_of).
    ///
    /// # Errors
    /// If one of them is no JSON object, or a pattern in it cannot be read.
    pub fn quantization_files_of(
        &self,
        index_of: &dyn Fn(usize, usize) -> Option<usize>,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let mut files = Vec::new();
        let mut modules = None;
        for name in quantization::SIDE_FILES {
            if !self.has_file(name)? {
                continue;
            }
            let Some(file) = Config::read(&self.directory, name)? else { continue };
            let modules = modules.get_or_insert_with(|| self.modules(index_of));
            let objects = file.objects_under(&["quantization"])?;
            let object = objects.first().copied().unwrap_or_else(|| file.json());
            let edits = quantization::edits(file.json(), object, modules);
            let edits = edits.map_err(|problem| file.refuse(problem))?;
            files.push((name, file.replaced(&[], edits)?));
        }
        Ok(files)
    }

    /// Checks that [`quantization_files_of`](Self::quantization_files_of) can read the files that there are.
    pub(crate) fn check_quantization_files(&self) -> Result<(), Error> {
        self.quantization_files_of(&|_, expert| Some(expert)).map(drop)
    }

    /// The texts of the quantisation configs in `config.json`: at the top or in an object there.
    pub(super) fn quantization_configs(&self) -> Result<Vec<&str>, Error> {
        self.config.objects_under(&QUANTIZATION)
    }

    /// Whether a file of this name says how modules are quantised, beside `config.json`.
    pub(crate) fn is_quantization_file(name: &Path) -> bool {
        quantization::SIDE_FILES.iter().any(|file| name == Path::new(file))
    }

    fn has_file(&self, name: &str) -> Result<bool, Error> {
        Ok(self.directory.read(Path::new(name), 1)?.is_some())
    }

    /// The modules of this model and their names in one in which `index_of` says where experts are.
    fn modules(&self, index_of: &dyn Fn(usize, usize) -> Option<usize>) -> Modules {
        let mut experts: BTreeMap<String, Vec<Option<usize>>> = BTreeMap::new();
        let mut names: Vec<&str> = Vec::new();
        for tensor in self.tensors() {
            let name = tensor.name.as_str();
            let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
            if names.last() != Some(&module) {
                names.push(module);
            }
            let Some((layer, expert, after)) = self.names.expert_of(name) else { continue };
            let Some(moe) = self.spec.moe_of(layer).filter(|moe| expert < moe.experts) else {
                continue;
            };
            let before =
                name[..name.len() - after.len()].trim_end_matches(|c: char| c.is_ascii_digit());
            let before = before.trim_end_matches('.');
            if !experts.contains_key(before) {
                let numbers = (0..moe.experts).map(|expert| index_of(layer, expert)).collect();
                experts.insert(before.to_owned(), numbers);
            }
        }
        names.sort_unstable();
        names.dedup();
        Modules::new(experts, names)
    }

    fn config_with(
        &self,
        kept_per_layer: &[usize],
        drops_extra: bool,
        index_of: &dyn Fn(usize, usize) -> Option<usize>,
    ) -> Result<String, Error> {
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
        let mut edits = Vec::new();
        let objects = self.quantization_configs()?;
        if !objects.is_empty() {
            let modules = self.modules(index_of);
            for object in objects {
                let of_object = quantization::edits(self.config.json(), object, &modules);
                edits.extend(of_object.map_err(|problem| self.config.refuse(problem))?);
            }
        }
        self.config.replaced(&changes, edits)
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

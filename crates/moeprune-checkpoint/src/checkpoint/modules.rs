//! Parts that several tensors hold together: codes of a quantised weight, and what is needed to read them.

use std::collections::BTreeMap;

use moeprune_core::{
    Dtype, LayerTensor, LinearId, TensorId,
    encoding::{Misfit, ModuleTensors, QuantConfig, StoredForm, codes_of, form_of, shape_of},
};

use super::{Checkpoint, StoredTensor, layout::Layout};
use crate::{Error, family::Names, model_directory::ModelDirectory, place::Place};

/// A part that several tensors hold together.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// What the tensors' names have in common: `model.layers.3.mlp.experts.17.up_proj`.
    prefix: String,
    /// The number of the tensor that holds the codes.
    pub(crate) main: usize,
    /// The numbers of all tensors, by what their names have after the prefix.
    pub(crate) tensors: BTreeMap<String, usize>,
    /// Where the part is in them, if they hold all experts of a layer.
    pub(crate) fused: Option<(usize, usize)>,
}

/// How a part is stored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredPart<'a> {
    /// What the names of its tensors begin with: `model.layers.3.mlp.experts.17.up_proj`.
    pub module: &'a str,
    /// In which form its tensors hold it.
    pub form: &'a StoredForm,
    /// The tensor that holds the codes: the one among [`tensors`](Self::tensors) whose name comes with it.
    pub main: &'a StoredTensor,
    /// All tensors that belong to it, the one with the codes included, by what their names have after the
    /// module's, without the dot: `weight`, `weight_scale_inv`. One that is its expert's and of no module
    /// is under `../` and what follows the expert's number.
    pub tensors: Vec<(&'a str, &'a StoredTensor)>,
}

/// What names of tensors with codes of all experts have after that of the matrix, and of what is beside them.
pub(super) const CODES: [&str; 2] = ["_blocks", "_scales"];

/// Whether tensors of this type hold codes, and other numbers than weights.
pub(super) fn is_code(dtype: Dtype) -> bool {
    use Dtype::{F4, F8_E4M3, F8_E5M2, F8_E8M0, I8, I32, U8};
    [F4, F8_E4M3, F8_E5M2, F8_E8M0, I8, I32, U8].contains(&dtype)
}

/// Whether any tensor holds codes. Only then may modules be in several tensors.
pub(super) fn has_codes(layout: &Layout) -> bool {
    layout.model.is_none() && layout.tensors.iter().any(|tensor| is_code(tensor.dtype))
}

/// Gives a tensor that no name is known of the part that it helps to hold. Of a model without codes only what
/// is an expert's and of none of its matrices.
pub(super) fn assign(tensor: &mut StoredTensor, names: &Names, has_codes: bool) -> bool {
    let Some((part, suffix)) = names.module_of(&tensor.name) else { return false };
    if !(has_codes || suffix.starts_with("../")) {
        return false;
    }
    (tensor.part, tensor.suffix) = (Some(part), Some(suffix));
    true
}

/// Finds the parts that are in several tensors, or in codes alone.
pub(super) fn group(
    layout: &mut Layout,
    directory: &ModelDirectory,
) -> Result<BTreeMap<TensorId, Module>, Error> {
    let mut found: BTreeMap<TensorId, BTreeMap<String, usize>> = BTreeMap::new();
    for (at, tensor) in layout.tensors.iter().enumerate() {
        if let (Some(part), Some(suffix)) = (tensor.part, &tensor.suffix) {
            found.entry(part).or_default().insert(suffix.clone(), at);
        }
    }
    for (at, tensor) in layout.tensors.iter_mut().enumerate() {
        let (Some(part), None) = (tensor.part, &tensor.suffix) else { continue };
        let alone = !found.contains_key(&part);
        let Some(suffix) = tensor.name.strip_suffix(".weight").map(|_| "weight".to_owned()) else {
            continue;
        };
        if alone && tensor.dtype != Dtype::F8_E4M3 {
            continue;
        }
        let other = found.entry(part).or_default().insert(suffix.clone(), at);
        tensor.suffix = Some(suffix);
        if other.is_some() {
            let reason = format!("holds the {part}, and so does another tensor");
            return Err(bad(directory, &tensor.name, reason));
        }
    }
    let module = |(part, tensors): (TensorId, BTreeMap<String, usize>)| {
        let own = tensors.iter().find(|(suffix, _)| !suffix.starts_with("../"));
        let has_own = own.is_some();
        let (suffix, &at) = own
            .or_else(|| tensors.iter().next())
            .ok_or_else(|| bad(directory, &part.to_string(), "has no tensors".to_owned()))?;
        let name = &layout.tensors[at].name;
        let prefix = name.strip_suffix(suffix.as_str()).unwrap_or(name).trim_end_matches('.');
        let mut module = Module { prefix: prefix.to_owned(), main: at, tensors, fused: None };
        if has_own {
            let names = module.own_names();
            let codes = codes_of(&module.headers(&names, layout));
            let codes = codes.map_err(|misfit| module.misfit(directory, misfit))?;
            module.main = names.iter().find(|(name, _)| name == codes).map_or(at, |(_, at)| *at);
        }
        Ok((part, module))
    };
    found.into_iter().map(module).collect()
}

/// Adds the parts that are held by tensors with codes of all experts of a layer.
///
/// # Errors
/// The number of the tensor beside which one is missing, and what.
pub(super) fn add_fused(
    modules: &mut BTreeMap<TensorId, Module>,
    layout: &Layout,
    directory: &ModelDirectory,
) -> Result<(), Error> {
    for (main, tensor) in layout.tensors.iter().enumerate() {
        let (Some(suffix), Some(held)) = (&tensor.suffix, &tensor.experts) else { continue };
        let prefix = tensor.name.strip_suffix(suffix.as_str()).unwrap_or_default();
        if !tensor.is_main {
            let codes = layout.tensors.iter().any(|t| t.is_main && t.slab == tensor.slab);
            if !codes {
                let reason = format!("is there without the codes of `{prefix}`");
                return Err(bad(directory, &tensor.name, reason));
            }
            continue;
        }
        let beside = layout.tensors.iter().enumerate();
        let beside = beside.filter(|(_, t)| t.suffix.is_some() && t.slab == tensor.slab);
        let tensors: BTreeMap<String, usize> =
            beside.filter_map(|(at, t)| Some((t.suffix.clone()?, at))).collect();
        if tensors.len() != CODES.len() {
            let reason = format!("is missing beside `{}`", tensor.name);
            return Err(bad(directory, &format!("{prefix}{}", CODES[1]), reason));
        }
        for expert in 0..held.experts().experts {
            for (matrix, part) in held.parts(expert).into_iter().enumerate() {
                let (prefix, tensors) = (prefix.to_owned(), tensors.clone());
                let fused = Some((expert, matrix));
                modules.insert(part, Module { prefix, main, tensors, fused });
            }
        }
    }
    Ok(())
}

impl Module {
    /// Where the part is in one of its tensors.
    pub(crate) fn place_in(&self, layout: &Layout, tensor: usize) -> Result<Place, Error> {
        let stored = &layout.tensors[tensor];
        match (self.fused, &stored.experts) {
            (Some((expert, matrix)), Some(held)) => {
                held.experts().place(stored.form(), expert, matrix)
            }
            _ => Place::separate(stored.form()),
        }
    }

    /// What the names of its tensors have after the module's, with the dot if there is one. Those that are
    /// its expert's and of no module are left out.
    pub(super) fn own_names(&self) -> Vec<(String, usize)> {
        let own = self.tensors.iter().filter(|(suffix, _)| !suffix.starts_with("../"));
        let dotted = |suffix: &str| match suffix.starts_with('_') {
            true => suffix.to_owned(),
            false => format!(".{suffix}"),
        };
        own.map(|(suffix, &at)| (dotted(suffix), at)).collect()
    }

    /// The tensors of these names, as far as headers say.
    pub(super) fn headers<'a>(
        &self,
        names: &'a [(String, usize)],
        layout: &'a Layout,
    ) -> ModuleTensors<'a> {
        let header = |(suffix, at): &'a (String, usize)| {
            let StoredTensor { dtype, shape, .. } = &layout.tensors[*at];
            (suffix.as_str(), *dtype, shape.as_slice())
        };
        names.iter().map(header).collect()
    }

    /// What the name of the tensor with the codes has after the module's.
    pub(super) fn codes<'a>(&self, names: &'a [(String, usize)]) -> Option<&'a str> {
        names.iter().find(|(_, at)| *at == self.main).map(|(suffix, _)| suffix.as_str())
    }

    /// The shape of the weight, as far as the tensors say.
    pub(super) fn shape(&self, layout: &Layout) -> Vec<usize> {
        let names = self.own_names();
        match self.codes(&names) {
            Some(codes) => shape_of(&self.headers(&names, layout), codes),
            None => layout.tensors[self.main].shape.clone(),
        }
    }

    /// The form in which the tensors hold a part of shape `expected`.
    pub(super) fn form(
        &self,
        layout: &Layout,
        (expected, said): (&[usize], &QuantConfig),
        directory: &ModelDirectory,
    ) -> Result<StoredForm, Error> {
        let names = self.own_names();
        let Some(codes) = self.codes(&names) else {
            return Ok(StoredForm::Unknown(String::new()));
        };
        let form = form_of(&self.headers(&names, layout), codes, expected, said);
        form.map_err(|mut misfit| {
            // Of the names that it may have, one that another module's has.
            let is_used = |suffix: &&str| layout.tensors.iter().any(|t| t.name.ends_with(*suffix));
            let own = [misfit.suffix.as_str()].into_iter().chain(misfit.others.iter().copied());
            let used = own.into_iter().find(is_used).map(str::to_owned);
            misfit.suffix = used.unwrap_or(misfit.suffix);
            let at = self.tensors.get(misfit.suffix.trim_start_matches('.')).copied();
            let file = &layout.tensors[at.unwrap_or(self.main)].file;
            misfit.reason = format!("{} (in {file})", misfit.reason);
            self.misfit(directory, misfit)
        })
    }

    fn misfit(&self, directory: &ModelDirectory, misfit: Misfit) -> Error {
        bad(directory, &format!("{}{}", self.prefix, misfit.suffix), misfit.reason)
    }
}

fn bad(directory: &ModelDirectory, name: &str, reason: String) -> Error {
    Error::Tensor { dir: directory.path.clone(), name: name.to_owned(), reason }
}

/// Checks that matrices of a layer's experts whose codes are of the same type have companions of the same
/// names: one that has another, or lacks one, was damaged.
pub(super) fn check_alike(
    (modules, forms): (&BTreeMap<TensorId, Module>, &BTreeMap<TensorId, StoredForm>),
    layout: &Layout,
    directory: &ModelDirectory,
) -> Result<(), Error> {
    // By layer, matrix, and type of the codes.
    let mut groups: BTreeMap<(TensorId, Dtype), Vec<&Module>> = BTreeMap::new();
    let mut known: BTreeMap<(TensorId, Dtype), (&StoredForm, &Module)> = BTreeMap::new();
    for (part, module) in modules {
        if part.expert().is_some() {
            let codes = layout.tensors[module.main].dtype;
            let group = (part.with_expert(0), codes);
            groups.entry(group).or_default().push(module);
            if let Some(form @ StoredForm::Codes(_)) = forms.get(part) {
                known.entry(group).or_insert((form, module));
            }
        }
    }
    let unknown = forms.iter().filter(|(_, form)| matches!(form, StoredForm::Unknown(_)));
    for (part, _) in unknown {
        let Some(module) = modules.get(part) else { continue };
        let group = (part.with_expert(0), layout.tensors[module.main].dtype);
        let Some((form, of_known)) = known.get(&group) else { continue };
        check_shapes(module, (of_known, form), layout, directory)?;
    }
    for of_kind in groups.values() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for suffix in of_kind.iter().flat_map(|module| module.tensors.keys()) {
            *counts.entry(suffix).or_default() += 1;
        }
        let all = of_kind.len();
        let Some((suffix, count)) = counts.into_iter().find(|(_, count)| *count != all) else {
            continue;
        };
        let rare = 2 * count <= all;
        let odd = of_kind.iter().find(|module| module.tensors.contains_key(suffix) == rare);
        let there = odd.and_then(|module| Some(&layout.tensors[*module.tensors.get(suffix)?].name));
        let name = match (there, odd) {
            (Some(name), _) => name.clone(),
            (None, Some(module)) => format!("{}.{suffix}", module.prefix),
            (None, None) => suffix.to_owned(),
        };
        let reason = match rare {
            true => format!(
                "is there, but only {count} of {all} experts of the layer that are stored alike have \
                 such a tensor"
            ),
            false => format!(
                "is missing; {count} of {all} experts of the layer that are stored alike have it"
            ),
        };
        return Err(bad(directory, &name, reason));
    }
    Ok(())
}

/// Refuses a module whose tensors have the names that those of another expert have, but others' shapes, so
/// that nothing reads it.
fn check_shapes(
    module: &Module,
    (known, form): (&Module, &StoredForm),
    layout: &Layout,
    directory: &ModelDirectory,
) -> Result<(), Error> {
    if !module.tensors.keys().eq(known.tensors.keys()) {
        return Ok(());
    }
    let pairs = module.tensors.values().zip(known.tensors.values());
    let pairs = pairs.map(|(&at, &of)| (&layout.tensors[at], &layout.tensors[of]));
    let mut others = pairs.filter(|(tensor, of)| tensor.shape != of.shape);
    let Some((StoredTensor { name, dtype, shape, .. }, of)) = others.next() else { return Ok(()) };
    let (other, expected) = (&of.name, &of.shape);
    let reason = format!(
        "is {dtype} {shape:?}, expected {expected:?} ({form}) as of `{other}`; download it again"
    );
    Err(bad(directory, name, reason))
}

/// Refuses routers in codes.
pub(super) fn check_routers(
    modules: &BTreeMap<TensorId, Module>,
    layout: &Layout,
    directory: &ModelDirectory,
) -> Result<(), Error> {
    let is_router =
        |part: &TensorId| matches!(part, TensorId::Layer(_, LayerTensor::Linear(LinearId::Router)));
    let Some((_, router)) = modules.iter().find(|(part, _)| is_router(part)) else { return Ok(()) };
    let StoredTensor { name, dtype, shape, .. } = &layout.tensors[router.main];
    let reason = format!(
        "is {dtype} {shape:?} of a quantised router, whose rows cannot be cut; expected a router in F32, F16 \
         or BF16: start from a checkpoint that leaves its routers as they were"
    );
    Err(bad(directory, name, reason))
}

impl Checkpoint {
    /// How a part is stored that is in several tensors, or in codes; `None` of one that is a tensor of
    /// numbers, or in a tensor with others.
    #[must_use]
    pub fn stored_part(&self, id: TensorId) -> Option<StoredPart<'_>> {
        let (module, form) = (self.modules.get(&id)?, self.forms.get(&id)?);
        let tensors = module.tensors.iter();
        let tensors = tensors.map(|(suffix, &at)| (suffix.as_str(), &self.layout.tensors[at]));
        Some(StoredPart {
            module: &module.prefix,
            form,
            main: &self.layout.tensors[module.main],
            tensors: tensors.collect(),
        })
    }

    /// One of the tensors that hold a part together, and where in it the part is; `None` if there is none of
    /// this suffix.
    pub(crate) fn companion(
        &self,
        id: TensorId,
        suffix: &str,
    ) -> Result<Option<(&StoredTensor, Place)>, Error> {
        let Some(module) = self.modules.get(&id) else { return Ok(None) };
        let Some(&at) = module.tensors.get(suffix) else { return Ok(None) };
        Ok(Some((&self.layout.tensors[at], module.place_in(&self.layout, at)?)))
    }

    /// The bytes that hold a part in all of its tensors; 0 of one that this model lacks.
    #[must_use]
    pub fn stored_bytes(&self, id: TensorId) -> u64 {
        let of = |place: &Place| {
            let tensor = self.tensor_at(place);
            let of_all = u128::from(tensor.bytes) * place.elements() as u128;
            (of_all / u128::from(tensor.elements().max(1))) as u64
        };
        match self.modules.get(&id) {
            Some(Module { tensors, fused: None, .. }) => {
                tensors.values().map(|&at| self.layout.tensors[at].bytes).sum()
            }
            Some(module) => {
                let places = module.tensors.values().map(|&at| module.place_in(&self.layout, at));
                places.flatten().map(|place| of(&place)).sum()
            }
            None => self.place_of(id).map_or(0, of),
        }
    }

    /// Whether a part is stored in codes, of a form that is decoded or not.
    #[must_use]
    pub fn is_in_codes(&self, id: TensorId) -> bool {
        self.forms.get(&id).is_some_and(|form| !matches!(form, StoredForm::Numbers(_)))
    }

    /// Whether a part is stored as numbers of bf16.
    #[must_use]
    pub fn is_bf16(&self, id: TensorId) -> bool {
        !self.is_in_codes(id)
            && self.place_of(id).is_ok_and(|place| self.tensor_at(place).dtype == Dtype::BF16)
    }

    /// Whether a tensor holds its part by itself, and as numbers.
    pub(crate) fn is_plain(&self, tensor: &StoredTensor) -> bool {
        let form = tensor.part.and_then(|part| self.forms.get(&part));
        let plain = |form: &StoredForm| matches!(form, StoredForm::Numbers(_));
        tensor.suffix.is_none() || tensor.is_main && form.is_some_and(plain)
    }
}

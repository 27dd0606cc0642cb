//! Hashes that tell models apart without reading their experts.

use moeprune_core::{
    Dtype, Fingerprint, LinearId, ModelSpec, MoeSpec, RouterInput, RouterSpec, RoutersHash,
    StoredTensors, TensorBytes, TensorId,
};
use sha2::{Digest, Sha256};

use super::layout::Layout;
use crate::Error;

/// What is hashed: every field is preceded by its length, so no two inputs run together.
#[derive(Clone)]
pub(super) struct Fields(Sha256);

impl Fields {
    pub(super) fn new(what: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.push(what.as_bytes());
        fields
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn push_shape(&mut self, shape: &[usize]) {
        self.0.update((shape.len() as u64).to_le_bytes());
        for &dim in shape {
            self.0.update((dim as u64).to_le_bytes());
        }
    }

    pub(super) fn finish(self) -> String {
        let hex: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}

/// The model part: every part's name and shape, experts as matrices in any form of storage, and the values of the routers as f32, in the order
/// of the layers; once more with these rounded to bf16, where that changes any. The storage part: names and element types in the order of the names, and the
/// routers as they are stored.
///
/// The routers' part: of each decoder layer with experts its number, and the shape and the values of its router,
/// rounded to bf16.
///
/// Softmax over all experts and the two best, weighted by their shares, is what a router does of
/// which nothing else is hashed. Of any other, the model part has its rule, the number of experts that
/// it selects, and the values of its other tensors; the storage part has their bytes.
pub(super) fn compute<'a>(
    layout: &Layout,
    spec: &ModelSpec,
    read: &dyn Fn(TensorId) -> Result<TensorBytes<'a>, Error>,
) -> Result<Fingerprint, Error> {
    let mut model = Models::new();
    for part in spec.decoded().parts() {
        model.push(part.id.to_string().as_bytes());
        model.push_shape(&part.shape);
    }
    let mut storage = Fields::new("moeprune storage 1");
    let mut stored = StoredTensors::default();
    for tensor in layout.by_name() {
        *stored.0.entry(tensor.dtype.to_string()).or_default() += 1;
        storage.push(tensor.name.as_bytes());
        storage.push(tensor.dtype.to_string().as_bytes());
    }
    let mut push = |id: TensorId, model: &mut Models| {
        let tensor = read(id)?;
        model.push_values(&tensor)?;
        storage.push(tensor.bytes());
        Ok::<_, Error>(())
    };
    let mut routers = Fields::new("moeprune routers 1");
    for (layer, moe) in spec.layers.iter().enumerate().filter_map(|(l, of)| Some((l, of.moe()?))) {
        let router = TensorId::linear(layer, LinearId::Router);
        routers.push_shape(&[layer, moe.experts, spec.hidden]);
        routers.push(&rounded(&read(router)?)?);
        push(router, &mut model)?;
        if moe.top_k == 2 && moe.router == RouterSpec::softmax(true) {
            continue;
        }
        model.push(&rule(moe)?);
        for id in shared_by_experts(spec, layer) {
            model.push(id.to_string().as_bytes());
            push(id, &mut model)?;
        }
    }
    let (model, rounded) = model.finish();
    let routers = routers.finish();
    let hash = routers.trim_start_matches("sha256:").to_owned();
    let routers = Some(RoutersHash { hash, decides: layout.model.is_some() });
    Ok(Fingerprint { model, storage: storage.finish(), rounded, routers, stored: Some(stored) })
}

/// The model part, and the same of rounded routers as soon as rounding changes one.
struct Models {
    exact: Fields,
    rounded: Option<Fields>,
}

impl Models {
    fn new() -> Self {
        Self { exact: Fields::new("moeprune model 1"), rounded: None }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.each(|fields| fields.push(bytes));
    }

    fn push_shape(&mut self, shape: &[usize]) {
        self.each(|fields| fields.push_shape(shape));
    }

    /// A tensor's values as f32.
    fn push_values(&mut self, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        let values = tensor.to_f32()?;
        let bytes = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let exact = bytes(&values);
        if tensor.dtype() == Dtype::BF16 {
            self.push(&exact);
            return Ok(());
        }
        let rounded = TensorBytes::encode(Dtype::BF16, tensor.shape(), &values)?.to_f32()?;
        let rounded = bytes(&rounded);
        if rounded != exact {
            // Until now the two were the same.
            self.rounded.get_or_insert_with(|| self.exact.clone());
        }
        self.exact.push(&exact);
        if let Some(fields) = &mut self.rounded {
            fields.push(&rounded);
        }
        Ok(())
    }

    fn each(&mut self, push: impl Fn(&mut Fields)) {
        push(&mut self.exact);
        self.rounded.iter_mut().for_each(push);
    }

    fn finish(self) -> (String, Option<String>) {
        (self.exact.finish(), self.rounded.map(Fields::finish))
    }
}

/// A tensor's values rounded to bf16, as bytes.
fn rounded(tensor: &TensorBytes<'_>) -> Result<Vec<u8>, Error> {
    let values = tensor.to_f32()?;
    Ok(TensorBytes::encode(Dtype::BF16, tensor.shape(), &values)?.bytes().to_vec())
}

/// How many experts a token gets and how they are chosen, as JSON.
fn rule(moe: &MoeSpec) -> Result<Vec<u8>, Error> {
    let rule = serde_json::json!({ "top_k": moe.top_k, "router": moe.router });
    serde_json::to_vec(&rule).map_err(|e| Error::Weight {
        operation: "fingerprint",
        reason: format!("the rule of a router cannot be written as JSON: {e}"),
    })
}

/// The tensors of a layer that its experts share and that decide who is chosen, beside the router's weight:
/// those with one entry per expert, and what a router's own input is multiplied by.
fn shared_by_experts(spec: &ModelSpec, layer: usize) -> impl Iterator<Item = TensorId> {
    let parts = spec.layer_parts(layer).into_iter().filter(move |part| {
        let by_expert = part.expert_axis.is_some() && part.id.expert().is_none();
        by_expert || part.id == TensorId::Layer(layer, RouterInput::SCALE)
    });
    parts.map(|part| part.id).filter(move |id| *id != TensorId::linear(layer, LinearId::Router))
}

//! What a published model looks like, and smaller models of the same form.

use std::{collections::BTreeMap, sync::Arc};

use moeprune_checkpoint::{Checkpoint, StoredTensor};
use moeprune_core::ModelSpec;
use serde_json::{Map, Value};

use crate::{
    Error, Published, Reduction,
    headers::Headers,
    shaped_tensor::{Role, ShapedTensor},
    shards,
};

/// A model without weights.
#[derive(Debug)]
pub struct Shape {
    /// What `config.json` says.
    pub(crate) config: Map<String, Value>,
    spec: ModelSpec,
    /// Sorted by name as the format's own writer sorts them: expert 10 comes before expert 2.
    pub(crate) tensors: Vec<ShapedTensor>,
}

impl Shape {
    /// The published model, reduced.
    ///
    /// Heads that share keys and values stay as many; there are fewer such groups as long as
    /// `scale` divides their number, and narrower heads beyond.
    ///
    /// # Errors
    /// [`Error::Scale`] if the scale leaves no whole heads, [`Error::TooFew`] if there are no
    /// layers with experts, fewer experts than a token goes through, or no tokens beside the two that
    /// begin and end a text, [`Error::Reduced`] if no model of the family can have these sizes.
    pub fn new(published: Published, reduction: &Reduction) -> Result<Self, Error> {
        let mut form = published.form()?;
        reduction.apply(published, &mut form)?;
        let reduced = |problem| Error::Reduced { model: published.name(), problem };
        let mut tensors = form.tensors().map_err(reduced)?;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let carried = |named| ShapedTensor { named, role: Role::Carried };
        let mut tensors: Vec<ShapedTensor> = tensors.into_iter().map(carried).collect();

        // What each of them is comes from where every reader has it from: the names in the headers.
        let shards = shards::plan(tensors.clone(), u64::MAX);
        let files = Headers::new(published.name(), config_text(&form.config), &shards);
        let opened = Checkpoint::open_files(Arc::new(files), None);
        let opened = opened.map_err(|e| reduced(e.to_string()))?;
        let roles: BTreeMap<&str, Role> =
            opened.tensors().map(|t| (&*t.name, role_of(t))).collect();
        for tensor in &mut tensors {
            if let Some(role) = roles.get(&*tensor.named.name) {
                tensor.role = role.clone();
            }
        }
        let spec = opened.spec().clone();
        Ok(Self { config: form.config, spec, tensors })
    }

    /// What the model consists of.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.named.bytes()).sum()
    }
}

pub(crate) fn config_text(config: &Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(config.clone()))
}

fn role_of(stored: &StoredTensor) -> Role {
    match (stored.part, &stored.experts) {
        (Some(part), _) => Role::Part(part),
        (None, Some(experts)) => Role::Experts(experts.clone()),
        (None, None) => Role::Carried,
    }
}

#[cfg(test)]
mod tests {
    use moeprune_core::{
        AttentionSpec, GroupedAttention, LayerTensor, LinearId, MlpProjection, ParameterCounts,
        TensorId,
    };

    use super::*;

    fn published(published: Published) -> Shape {
        Shape::new(published, &Reduction::default()).unwrap()
    }

    /// Elements of the tensors that `counts` accepts.
    fn elements(shape: &Shape, counts: impl Fn(&ShapedTensor) -> bool) -> u64 {
        let elements =
            |t: &ShapedTensor| t.named.shape.iter().map(|&dim| dim as u64).product::<u64>();
        shape.tensors.iter().filter(|t| counts(t)).map(elements).sum()
    }

    fn is_linear(tensor: &ShapedTensor) -> bool {
        let is_linear =
            |part: &TensorId| matches!(part, TensorId::Layer(_, LayerTensor::Linear(_)));
        match &tensor.role {
            Role::Part(part) => is_linear(part),
            Role::Experts(fused) => fused.parts(0).iter().any(is_linear),
            Role::Carried => false,
        }
    }

    #[test]
    fn arctic_has_its_true_size() {
        let shape = published(Published::Arctic);
        assert_eq!(elements(&shape, |_| true), 478_584_608_768);
        assert_eq!(elements(&shape, is_linear), 478_125_096_960);
        assert_eq!(elements(&shape, |t| is_linear(t) && !t.is_router()), 478_092_984_320);
        let of_layer = |t: &ShapedTensor| matches!(t.role, Role::Part(TensorId::Layer(layer, _)) if layer == 0);
        let layer = 2 * elements(&shape, of_layer);
        assert_eq!((layer as f64 / 1e8).round() / 10.0, 27.3, "{layer} bytes");
    }

    /// What model cards and headers of the published files say, in elements.
    #[test]
    fn models_have_their_true_sizes() {
        fn check(model: Published, expected: u64) {
            assert_eq!(elements(&published(model), |_| true), expected, "{model}");
        }
        check(Published::Mixtral, 46_702_792_704);
        check(Published::Qwen3, 30_532_122_624);
        check(Published::Qwen3Coder, 480_154_875_392);
        check(Published::Glm45Air, 110_468_824_832);
        check(Published::DeepSeekV3, 684_489_845_504);
        check(Published::KimiK2, 1_026_408_232_448);
        check(Published::GptOss120bBf16, 116_829_156_672);
    }

    #[test]
    fn the_list_of_tensors_and_the_accounting_agree() {
        for &model in Published::ALL {
            let shape = published(model);
            let counts = ParameterCounts::of(&shape.spec);
            let linears = elements(&shape, |t| is_linear(t) && !t.is_router());
            // Bytes that hold codes are not one weight each.
            let in_codes = shape.tensors.iter().any(|t| !t.named.dtype.is_weight());
            if shape.spec.extra.is_none() && !in_codes {
                assert_eq!(linears, counts.linears, "{model}");
                let parts = elements(&shape, |t| t.role != Role::Carried);
                assert_eq!(parts, counts.all, "{model}");
            }
        }
    }

    #[test]
    fn expert_10_comes_before_expert_2() {
        let tensors = published(Published::Arctic).tensors;
        let at = |expert: usize| {
            let id = LinearId::Expert(expert, MlpProjection::Gate);
            let part = Role::Part(TensorId::linear(0, id));
            tensors.iter().position(|t| t.role == part).unwrap()
        };
        assert!(at(10) < at(2));
    }

    #[test]
    fn scales_keep_heads_sensible() {
        fn check(model: Published, scale: usize, expected: Option<(usize, usize, usize, usize)>) {
            let shape = Shape::new(model, &Reduction { scale, ..Reduction::default() });
            match (shape, expected) {
                (Ok(Shape { spec, .. }), _) => {
                    let AttentionSpec::Grouped(attention) = &spec.layers[0].attention else {
                        panic!("{model}")
                    };
                    let GroupedAttention { heads, kv_heads, head_dim, .. } = attention.clone();
                    let got = (spec.hidden, heads, kv_heads, head_dim);
                    assert_eq!(Some(got), expected, "{scale}");
                }
                (Err(_), None) => {}
                (Err(e), _) => panic!("{scale}: {e}"),
            }
        }
        check(Published::Arctic, 1, Some((7168, 56, 8, 128)));
        check(Published::Arctic, 2, Some((3584, 28, 4, 128)));
        check(Published::Arctic, 8, Some((896, 7, 1, 128)));
        check(Published::Arctic, 32, Some((224, 7, 1, 32)));
        check(Published::Arctic, 128, Some((56, 7, 1, 8)));
        check(Published::Arctic, 0, None);
        check(Published::Arctic, 7, None);
        check(Published::Arctic, 256, None);
        check(Published::Mixtral, 4, Some((1024, 8, 2, 128)));
        check(Published::Mixtral, 16, Some((256, 4, 1, 64)));
        check(Published::Mixtral, 3, None);
        check(Published::Qwen3, 8, Some((256, 8, 1, 64)));
    }

    #[test]
    fn every_model_can_be_small() {
        for &model in Published::ALL {
            let reduction =
                Reduction { layers: Some(5), experts: Some(24), vocab: Some(64), scale: 2 };
            let shape = Shape::new(model, &reduction).unwrap();
            assert_eq!(shape.spec.layers.len(), 5, "{model}");
            assert_eq!(shape.spec.layers[4].moe().unwrap().experts, 24, "{model}");
        }
    }

    #[test]
    fn a_scale_that_does_not_fit_names_those_that_do() {
        let reduction = Reduction { scale: 3, ..Reduction::default() };
        let message = Shape::new(Published::Arctic, &reduction).unwrap_err().to_string();
        assert!(message.ends_with("these do: 1, 2, 4, 8, 16, 32, 64, 128"), "{message}");
    }

    #[test]
    fn a_name_that_is_unknown_names_those_that_are_known() {
        let message = "grok".parse::<Published>().unwrap_err().to_string();
        assert!(message.contains("deepseek-v3-fp8, kimi-k2"), "{message}");
        assert_eq!("mixtral".parse::<Published>().unwrap(), Published::Mixtral);
    }
}

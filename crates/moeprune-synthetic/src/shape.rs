//! What a family's published model looks like, and smaller models of the same form.

use moeprune_checkpoint::Family;
use moeprune_core::{
    AttentionSpec, FeedForward, GroupedAttention, LayerSpec, MlpSpec, ModelSpec, MoeInput, MoeSpec,
    Multipliers, NormWeights, ParameterCounts, Part, RouterSpec,
};
use serde_json::{Map, Value};

use crate::{
    Error,
    shaped_tensor::{ELEMENT, ShapedTensor},
};

/// Narrower heads have too few rotary frequencies to be called attention.
const NARROWEST_HEAD: usize = 8;

/// A family with a published model whose shapes are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Published {
    /// Snowflake Arctic: 35 layers of 128 experts, 479 billion parameters.
    Arctic,
    /// Mixtral-8x7B: 32 layers of 8 experts, 47 billion parameters.
    Mixtral,
}

impl Published {
    /// Its family, as descriptors name it.
    #[must_use]
    pub fn family(self) -> &'static str {
        match self {
            Self::Arctic => "arctic",
            Self::Mixtral => "mixtral",
        }
    }

    fn config(self) -> Result<Map<String, Value>, Error> {
        let text = match self {
            Self::Arctic => include_str!("arctic.toml"),
            Self::Mixtral => include_str!("mixtral.toml"),
        };
        toml::from_str(text).map_err(|e| self.damaged(e))
    }

    fn damaged(self, problem: impl ToString) -> Error {
        Error::BuiltIn { model: self.family(), problem: problem.to_string() }
    }
}

/// How a model differs from the published one.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "every way to be smaller")]
pub struct Reduction {
    /// Decoder layers; `None`: as published.
    pub layers: Option<usize>,
    /// Experts in each layer; `None`: as published.
    pub experts: Option<usize>,
    /// Rows of the embedding; `None`: as published.
    pub vocab: Option<usize>,
    /// Every width is divided by this.
    pub scale: usize,
}

impl Default for Reduction {
    /// None.
    fn default() -> Self {
        Self { layers: None, experts: None, vocab: None, scale: 1 }
    }
}

/// A model without weights.
#[derive(Debug)]
pub struct Shape {
    /// What `config.json` says.
    pub(crate) config: Map<String, Value>,
    spec: ModelSpec,
    published: Published,
    family: Family,
}

impl Shape {
    /// The published model, reduced.
    ///
    /// Heads that share keys and values stay as many; there are fewer such groups as long as
    /// `scale` divides their number, and narrower heads beyond.
    ///
    /// # Errors
    /// [`Error::Scale`] if the scale leaves no whole heads, [`Error::TooFew`] if there are no
    /// layers, fewer experts than a token goes through, or no tokens beside the two that begin and
    /// end a text.
    pub fn new(published: Published, reduction: &Reduction) -> Result<Self, Error> {
        let mut config = published.config()?;
        let sizes = Sizes::reduced(published, &config, reduction)?;
        sizes.write_to(&mut config, published)?;
        let spec = sizes.spec(&config, published)?;
        let family =
            Family::builtin(published.family()).ok_or_else(|| published.damaged("no family"))?;
        Ok(Self { config, spec, published, family })
    }

    /// What the model consists of.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Bytes of all tensors, which are bf16.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        ParameterCounts::of(&self.spec).all * ELEMENT as u64
    }

    /// All tensors, sorted by name as the format's own writer sorts them: expert 10 comes before
    /// expert 2.
    pub(crate) fn tensors(&self) -> Result<Vec<ShapedTensor>, Error> {
        let mut tensors = Vec::new();
        for Part { id: part, shape, .. } in self.spec.parts() {
            let name = self
                .family
                .name_of(part)
                .ok_or_else(|| self.published.damaged(format!("no name for {part}")))?;
            tensors.push(ShapedTensor { name, part, shape });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tensors)
    }
}

/// What a reduction leaves of the published sizes.
struct Sizes {
    widths: Widths,
    layers: usize,
    experts: usize,
    vocab: usize,
    /// Experts that a token goes through, which no reduction changes.
    top_k: usize,
}

impl Sizes {
    fn reduced(
        published: Published,
        config: &Map<String, Value>,
        reduction: &Reduction,
    ) -> Result<Self, Error> {
        let read = |key: &str| published_number(published, config, key);
        let widths = Widths {
            hidden: read("hidden_size")?,
            inner: read("intermediate_size")?,
            heads: read("num_attention_heads")?,
            kv_heads: read("num_key_value_heads")?,
        };
        let widths = widths.divided(reduction.scale)?;
        let layers = reduction.layers.map_or_else(|| read("num_hidden_layers"), Ok)?;
        let experts = reduction.experts.map_or_else(|| read("num_local_experts"), Ok)?;
        let vocab = reduction.vocab.map_or_else(|| read("vocab_size"), Ok)?;
        let top_k = read("num_experts_per_tok")?;
        at_least("experts", experts, top_k, "which a token goes through")?;
        at_least("layers", layers, 1, "or there is no model")?;
        at_least("tokens of vocabulary", vocab, 3, "two of which begin and end a text")?;
        Ok(Self { widths, layers, experts, vocab, top_k })
    }

    /// Puts the sizes in the place of the published ones, and the tokens that begin and end a text
    /// into the vocabulary.
    fn write_to(&self, config: &mut Map<String, Value>, published: Published) -> Result<(), Error> {
        let Self { widths, layers, experts, vocab, .. } = *self;
        for (key, value) in [
            ("hidden_size", widths.hidden),
            ("intermediate_size", widths.inner),
            ("num_attention_heads", widths.heads),
            ("num_key_value_heads", widths.kv_heads),
            ("num_hidden_layers", layers),
            ("num_local_experts", experts),
            ("vocab_size", vocab),
        ] {
            config.insert(key.to_owned(), value.into());
        }
        for (key, last) in [("bos_token_id", 2), ("eos_token_id", 1)] {
            if published_number(published, config, key)? >= vocab {
                config.insert(key.to_owned(), (vocab - last).into());
            }
        }
        Ok(())
    }

    /// The model of these sizes that is as published in everything else.
    fn spec(&self, config: &Map<String, Value>, published: Published) -> Result<ModelSpec, Error> {
        let Widths { hidden, inner, heads, kv_heads } = self.widths;
        let float = |key: &str| {
            let number = config.get(key).and_then(Value::as_f64);
            number.ok_or_else(|| published.damaged(format!("no `{key}`")))
        };
        let beside = published == Published::Arctic;
        let moe = MoeSpec {
            experts: self.experts,
            top_k: self.top_k,
            router: RouterSpec::softmax(true),
            expert: MlpSpec::gated(inner),
            shared: Vec::new(),
            residual: beside.then(|| MlpSpec::gated(hidden)),
            input: if beside { MoeInput::LayerInput } else { MoeInput::AfterAttention },
        };
        let layer = LayerSpec::new(
            AttentionSpec::Grouped(GroupedAttention::new(
                heads,
                kv_heads,
                hidden / heads,
                float("rope_theta")?,
            )),
            FeedForward::Moe(moe),
        );
        Ok(ModelSpec {
            family: published.family().to_owned(),
            hidden,
            vocab: self.vocab,
            max_positions: published_number(published, config, "max_position_embeddings")?,
            norm_eps: float("rms_norm_eps")?,
            norm_weights: NormWeights::Factor,
            tied_embeddings: false,
            head_bias: false,
            multipliers: Multipliers::default(),
            logit_cap: None,
            layers: vec![layer; self.layers],
            extra: None,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Widths {
    hidden: usize,
    inner: usize,
    heads: usize,
    kv_heads: usize,
}

impl Widths {
    fn divided(self, scale: usize) -> Result<Self, Error> {
        self.try_divide(scale).ok_or_else(|| {
            let works = (1..=self.hidden).filter(|&f| self.try_divide(f).is_some());
            let works: Vec<String> = works.map(|f| f.to_string()).collect();
            Error::Scale {
                scale,
                hidden: self.hidden,
                inner: self.inner,
                head: self.hidden / self.heads,
                narrowest: NARROWEST_HEAD,
                works: works.join(", "),
            }
        })
    }

    fn try_divide(self, scale: usize) -> Option<Self> {
        if scale == 0 || !self.hidden.is_multiple_of(scale) || !self.inner.is_multiple_of(scale) {
            return None;
        }
        let fewer = (1..=scale.min(self.kv_heads))
            .rfind(|&d| self.kv_heads.is_multiple_of(d) && scale.is_multiple_of(d))?;
        let divided = Self {
            hidden: self.hidden / scale,
            inner: self.inner / scale,
            heads: self.heads / fewer,
            kv_heads: self.kv_heads / fewer,
        };
        let whole = divided.hidden.is_multiple_of(divided.heads);
        let head = divided.hidden / divided.heads;
        // Rotary embeddings turn pairs.
        (whole && head.is_multiple_of(2) && head >= NARROWEST_HEAD).then_some(divided)
    }
}

fn published_number(
    published: Published,
    config: &Map<String, Value>,
    key: &str,
) -> Result<usize, Error> {
    let number = config.get(key).and_then(Value::as_u64);
    number
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| published.damaged(format!("no `{key}`")))
}

fn at_least(
    what: &'static str,
    got: usize,
    least: usize,
    because: &'static str,
) -> Result<(), Error> {
    if got >= least { Ok(()) } else { Err(Error::TooFew { what, got, least, because }) }
}

#[cfg(test)]
mod tests {
    use moeprune_core::{LayerTensor, LinearId, TensorId};

    use super::*;

    fn published(published: Published) -> Shape {
        Shape::new(published, &Reduction::default()).unwrap()
    }

    /// Elements of the tensors that `counts` accepts.
    fn elements(shape: &Shape, counts: impl Fn(&ShapedTensor) -> bool) -> u64 {
        let tensors = shape.tensors().unwrap();
        tensors.iter().filter(|t| counts(t)).map(ShapedTensor::elements).sum()
    }

    fn is_linear(tensor: &ShapedTensor) -> bool {
        matches!(tensor.part, TensorId::Layer(_, LayerTensor::Linear(_)))
    }

    fn is_of_layer(tensor: &ShapedTensor, layer: usize) -> bool {
        matches!(tensor.part, TensorId::Layer(l, _) if l == layer)
    }

    #[test]
    fn arctic_has_its_true_size() {
        let shape = published(Published::Arctic);
        assert_eq!(elements(&shape, |_| true), 478_584_608_768);
        assert_eq!(elements(&shape, is_linear), 478_125_096_960);
        assert_eq!(elements(&shape, |t| is_linear(t) && !t.is_router()), 478_092_984_320);
        let layer = 2 * elements(&shape, |t| is_of_layer(t, 0));
        assert_eq!((layer as f64 / 1e8).round() / 10.0, 27.3, "{layer} bytes");
    }

    #[test]
    fn mixtral_has_its_true_size() {
        assert_eq!(elements(&published(Published::Mixtral), |_| true), 46_702_792_704);
    }

    #[test]
    fn the_list_of_tensors_and_the_accounting_agree() {
        for family in [Published::Arctic, Published::Mixtral] {
            let shape = published(family);
            let counts = ParameterCounts::of(&shape.spec);
            assert_eq!(elements(&shape, |_| true), counts.all, "{family:?}");
            assert_eq!(shape.weight_bytes(), 2 * counts.all);
            let linears = elements(&shape, |t| is_linear(t) && !t.is_router());
            assert_eq!(linears, counts.linears, "{family:?}");
        }
    }

    #[test]
    fn expert_10_comes_before_expert_2() {
        let tensors = published(Published::Arctic).tensors().unwrap();
        let at = |expert: usize| {
            let id = LinearId::Expert(expert, moeprune_core::MlpProjection::Gate);
            tensors.iter().position(|t| t.part == TensorId::linear(0, id)).unwrap()
        };
        assert!(at(10) < at(2));
    }

    #[test]
    fn scales_keep_heads_sensible() {
        fn check(family: Published, scale: usize, expected: Option<(usize, usize, usize, usize)>) {
            let shape = Shape::new(family, &Reduction { scale, ..Reduction::default() });
            match (shape, expected) {
                (Ok(Shape { spec, .. }), _) => {
                    let AttentionSpec::Grouped(attention) = &spec.layers[0].attention else {
                        panic!("{family:?}")
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
    }

    #[test]
    fn a_scale_that_does_not_fit_names_those_that_do() {
        let reduction = Reduction { scale: 3, ..Reduction::default() };
        let message = Shape::new(Published::Arctic, &reduction).unwrap_err().to_string();
        assert!(message.ends_with("these do: 1, 2, 4, 8, 16, 32, 64, 128"), "{message}");
    }
}

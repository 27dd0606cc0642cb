//! How a router would choose without some of its experts.

use moeprune_core::{ModelSpec, TensorSource};

use super::Rule;
use crate::{Compute, Error, linear::Weights};

/// From a router's logits to the weight of each expert, as the forward pass chooses: for what asks how
/// a router would choose if some experts did not exist.
#[derive(Debug)]
pub struct Gating {
    rule: Rule<f64>,
}

impl Gating {
    /// The gating of layer `layer`, with the router's vectors, if it has any.
    ///
    /// # Errors
    /// [`Error::Kind`] if routers of this kind cannot be run; [`Error::Spec`] without experts;
    /// [`Error::Read`] if a vector cannot be read.
    pub fn load(source: &dyn TensorSource, spec: &ModelSpec, layer: usize) -> Result<Self, Error> {
        let Some(moe) = spec.layers.get(layer).and_then(|layer| layer.moe()) else {
            return Err(Error::Spec(format!("layer {layer} has no experts")));
        };
        let compute = Compute::cpu();
        let rule = Rule::load(Weights { source, compute: &compute }, layer, moe)?;
        let wide = |values: Option<Vec<f32>>| {
            values.map(|values| values.into_iter().map(f64::from).collect())
        };
        let Rule { experts, top_k, router, bias, correction, expert_scale } = rule;
        let (bias, correction, expert_scale) = (wide(bias), wide(correction), wide(expert_scale));
        Ok(Self { rule: Rule { experts, top_k, router, bias, correction, expert_scale } })
    }

    /// The weight of each expert for a token with these logits if the experts that are `gone` did not
    /// exist; 0 of one that is not chosen. In f64: to compare choices, not to run a model.
    #[must_use]
    pub fn gates_without(&self, logits: &[f64], gone: &[bool]) -> Vec<f64> {
        let top_k = self.rule.top_k.min(logits.len());
        let (mut indices, mut weights) = (vec![0; top_k], vec![0.0; top_k]);
        self.rule.choose(&mut logits.to_vec(), gone, &mut indices, &mut weights);
        let mut gates = vec![0.0; logits.len()];
        for (expert, weight) in indices.into_iter().zip(weights) {
            gates[expert as usize] = weight;
        }
        gates
    }
}

#[cfg(test)]
mod tests {
    use moeprune_core::ScoredRouter;

    use super::*;

    #[test]
    fn experts_that_are_gone_are_passed_over() {
        let gating = Gating { rule: Rule::new(3, 1, ScoredRouter::softmax(true)) };
        let check = |gone: [bool; 3], want: [f64; 3]| {
            assert_eq!(gating.gates_without(&[1.0, 3.0, 2.0], &gone), want);
        };
        check([false; 3], [0.0, 1.0, 0.0]);
        check([false, true, false], [0.0, 0.0, 1.0]);
        check([true, true, false], [0.0, 0.0, 1.0]);
    }
}

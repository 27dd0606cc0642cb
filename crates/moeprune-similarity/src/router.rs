//! Distance between router rows.

use std::borrow::Cow;

use moeprune_core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError};

use crate::{Error, squares::squared_distances};

/// Euclidean distance between the experts' router rows, `‖g_i − g_j‖₂`, in f64.
///
/// Rows are as they are stored, which is what STUN does. Two options make them what the router
/// computes with: [`bias`](Self::bias) and [`input_scale`](Self::input_scale).
///
/// Rows that nearly agree give nearly equal logits to every token, hence route the same tokens.
/// Needs the router alone: no forward pass, no expert weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct RouterDistance {
    /// What distances are divided by.
    pub normalization: RouterNormalization,
    /// Whether the router's bias is a further column of its rows. A router without one has none.
    pub bias: bool,
    /// Whether columns are multiplied by the weights of the norm before the router
    /// ([`LayerBehaviour::router_scale`]): features that the norm makes small then count for little.
    pub input_scale: bool,
}

/// What router distances are divided by, layer by layer.
///
/// Within a layer this changes nothing. Under a global budget it decides which layers lose most:
/// without normalisation, those with a small router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RouterNormalization {
    /// Nothing, as STUN pruned Arctic.
    #[default]
    None,
    /// The Frobenius norm of the layer's router.
    FrobeniusNorm,
}

impl ExpertSimilarity for RouterDistance {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        let experts = layer.experts();
        let rows = (0..experts).map(|expert| self.row(layer, expert));
        let rows: Vec<Cow<'_, [f32]>> = rows.collect::<Result<_, _>>()?;
        let scale = match self.normalization {
            RouterNormalization::None => 1.0,
            RouterNormalization::FrobeniusNorm => {
                let values = rows.iter().flat_map(|row| row.iter());
                let norm = values.map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                if norm == 0.0 && experts > 1 {
                    return Err(Error::ZeroRouter.into());
                }
                norm
            }
        };
        let squares = squared_distances(&rows);
        Ok(DistanceMatrix::from_fn(experts, |i, j| squares[i * experts + j].sqrt() / scale)?)
    }
}

impl RouterDistance {
    /// The row of an expert, with what is to be folded into it.
    fn row<'a>(
        &self,
        layer: &LayerBehaviour<'a>,
        expert: usize,
    ) -> Result<Cow<'a, [f32]>, StageError> {
        let mut row = Cow::Borrowed(layer.router.row(expert));
        if self.input_scale {
            let scale = layer.router_scale.ok_or(Error::NoInputScale)?;
            row.to_mut().iter_mut().zip(scale).for_each(|(g, &scale)| *g *= scale);
        }
        if self.bias
            && let Some(bias) = layer.router_bias
        {
            row.to_mut().extend(bias.get(expert));
        }
        Ok(row)
    }
}

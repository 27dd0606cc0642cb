//! Why a layer cannot be repaired.

use moeprune_core::StageError;

/// What is wrong with a layer, or with a parameter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The layer has numbers for another shape.
    #[error(
        "layer {layer}: expected {expected} {what}, got {got}; they must be of the same tokens"
    )]
    Shape {
        /// Decoder layer.
        layer: usize,
        /// What there are too many or too few of.
        what: &'static str,
        /// How many the shape asks for.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// An expert has numbers for another shape.
    #[error(
        "layer {layer}, surviving expert {expert}: expected {expected} {what}, got {got}; were they \
         stored for another model or other text?"
    )]
    ExpertShape {
        /// Decoder layer.
        layer: usize,
        /// Place among the experts that stay.
        expert: usize,
        /// What there are too many or too few of.
        what: &'static str,
        /// How many the shape asks for.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A token out of order, or beyond the last.
    #[error(
        "layer {layer}, surviving expert {expert}: token {token} must be above the one before it and \
         below {tokens}; route the tokens again"
    )]
    Token {
        /// Decoder layer.
        layer: usize,
        /// Place among the experts that stay.
        expert: usize,
        /// The token.
        token: u32,
        /// Tokens of the layer.
        tokens: usize,
    },
    /// A token weight that is none.
    #[error(
        "layer {layer}: the weight of token {token} is {value}; it must be finite and not negative: \
         look for hidden states that are not finite"
    )]
    TokenWeight {
        /// Decoder layer.
        layer: usize,
        /// The token.
        token: usize,
        /// Its weight.
        value: f64,
    },
    /// Activations too large to be squared and summed.
    #[error(
        "layer {layer}, surviving expert {expert}: the squares of its activations sum up to {value}, \
         which must be finite: look for damage in the checkpoint or in the calibration text"
    )]
    Activations {
        /// Decoder layer.
        layer: usize,
        /// Place among the experts that stay.
        expert: usize,
        /// The sum.
        value: f64,
    },
    /// No ridge made the system solvable.
    #[error(
        "layer {layer}, surviving expert {expert}: its activations cannot be fitted, not even with a \
         ridge of {ridge}; ask for a larger ridge, or look for activations that are not finite"
    )]
    NotPositiveDefinite {
        /// Decoder layer.
        layer: usize,
        /// Place among the experts that stay.
        expert: usize,
        /// The largest ridge that was tried.
        ridge: f64,
    },
    /// A new weight that is no number.
    #[error(
        "layer {layer}, surviving expert {expert}: the refitted weight at row {row}, column {col} is \
         {value}; it must be finite: ask for a larger ridge, or look for damage in the checkpoint"
    )]
    NotFinite {
        /// Decoder layer.
        layer: usize,
        /// Place among the experts that stay.
        expert: usize,
        /// Row of the weights, an output.
        row: usize,
        /// Column, an input.
        col: usize,
        /// What it became.
        value: f64,
    },
    /// The store did not do what was asked.
    #[error("layer {layer}, surviving expert {expert}: cannot {what}: {source}")]
    Store {
        /// Decoder layer.
        layer: usize,
        /// Place among the experts that stay.
        expert: usize,
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: StageError,
    },
    /// A parameter outside its range.
    #[error("{name} is {value}; it must be {range}")]
    Parameter {
        /// Parameter.
        name: &'static str,
        /// What it was.
        value: f64,
        /// What it may be, as text.
        range: &'static str,
    },
}

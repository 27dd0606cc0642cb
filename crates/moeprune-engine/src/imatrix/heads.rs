//! Input features that llama.cpp has in another order than the checkpoint.

use moeprune_core::{AttentionSpec, DeltaProjections, GatedDeltaNet, LinearId};

/// Puts the squared inputs of a Linear into the checkpoint's order.
///
/// That is another one only of what comes out of gated delta nets with more value heads than key heads
/// whose projections are stored apart (Qwen3.5): the converter puts the first value head of every key head
/// first, then all second ones, where the checkpoint has those of a key head beside each other.
pub(super) fn restore(attention: &AttentionSpec, site: LinearId, squares: &mut [f64]) {
    let AttentionSpec::GatedDelta(delta) = attention else { return };
    let is_output = site == GatedDeltaNet::OUTPUT && squares.len() == delta.value_width();
    if !is_output || delta.projections != DeltaProjections::Apart || delta.key_heads == 0 {
        return;
    }
    let stored = squares.to_vec();
    let (groups, width) = (delta.key_heads, delta.value_dim);
    let each = delta.value_heads / groups;
    for key_head in 0..groups {
        for of_it in 0..each {
            let (here, there) = (key_head * each + of_it, of_it * groups + key_head);
            squares[here * width..(here + 1) * width]
                .copy_from_slice(&stored[there * width..(there + 1) * width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_heads_stand_by_key_head_again() {
        let check = |projections, site, expected: [f64; 8]| {
            let delta = GatedDeltaNet {
                key_heads: 2,
                value_heads: 4,
                key_dim: 1,
                value_dim: 2,
                kernel: 4,
                projections,
            };
            let mut squares = [0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.0, 3.1];
            restore(&AttentionSpec::GatedDelta(delta), site, &mut squares);
            assert_eq!(squares, expected);
        };
        let as_stored = [0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.0, 3.1];
        let restored = [0.0, 0.1, 2.0, 2.1, 1.0, 1.1, 3.0, 3.1];
        check(DeltaProjections::Apart, GatedDeltaNet::OUTPUT, restored);
        check(DeltaProjections::ByKeyHead, GatedDeltaNet::OUTPUT, as_stored);
        check(DeltaProjections::Apart, GatedDeltaNet::QKV, as_stored);
    }
}

//! Whether removed and zero weights are as many as the report says.

use moeprune_core::{AchievedShares, ParameterCounts, Provenance, TensorId};

use super::{
    compare::{Finding, Item},
    report::VerifyReport,
};
use crate::Checkpoint;

/// Compares what was counted with what the report names, if it names any. `masked`: weights were zeroed,
/// and the report counts every zero; otherwise it counts only weights that went.
pub(super) fn add(
    report: &mut VerifyReport,
    source: &Checkpoint,
    (items, findings): (&[Item<'_>], &[Finding]),
    (hint, masked): (&Provenance, bool),
) {
    let (Some(found), Some(claimed)) = (report.sparsity, hint.achieved()) else { return };
    let counts = ParameterCounts::of(source.spec());
    let AchievedShares { experts, linears, all, .. } = claimed;
    // What is changed after zeros were counted may round to zero.
    let slack = if hint.refits() { found.rounding * counts.linears as f64 } else { 0.0 };
    let old = match masked {
        true => [0; 3],
        false => old_zeros(source, items, findings),
    };
    let compared = [
        ("of the experts", found.experts, experts, counts.experts, old[0]),
        ("of the decoder Linears", found.linears, linears, counts.linears, old[1]),
        ("of all parameters", found.all, all, counts.all, old[2]),
    ];
    let differs = compared.iter().find_map(|&(of, found, claimed, count, old)| {
        let found = found - old as f64 / count.max(1) as f64;
        let differs = (found - claimed).abs() * count as f64 > slack + 0.5;
        // Also if it is no number.
        (differs || claimed.is_nan())
            .then(|| format!("{found:.6} {of} are removed or zero, the report says {claimed:.6}"))
    });
    let agrees = || "removed and zero weights are as many as the report says".to_owned();
    report.add("reported sparsity", differs.map_or_else(|| Ok(agrees()), Err));
}

/// Zeros that the source or the report's new weights have too: of experts, decoder Linears and all.
fn old_zeros(source: &Checkpoint, items: &[Item<'_>], findings: &[Finding]) -> [u64; 3] {
    let mut old = [0; 3];
    for (item, finding) in items.iter().zip(findings) {
        let (Some((layer, linear)), Some(zeros)) = (item.linear(), finding.zeros) else { continue };
        if layer >= source.spec().layers.len() {
            continue;
        }
        // Codes that a repair rounded to zero did not go.
        let fresh = if finding.confirmed { 0 } else { finding.fresh_zeros };
        let zeros = zeros.saturating_sub(fresh);
        let part = source.spec().part(TensorId::linear(layer, linear));
        let prunable = part.is_some_and(|part| part.prunable);
        let counted = [prunable && linear.expert().is_some(), prunable, true];
        for (old, counted) in old.iter_mut().zip(counted) {
            *old += if counted { zeros } else { 0 };
        }
    }
    old
}

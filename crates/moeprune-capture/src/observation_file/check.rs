//! What an observation must fulfil to be written or believed.

use moeprune_core::{InputMoments, LinearId, Observation, RoutingSums};

use super::name::{Field, InputField, Name, RoutingField};

/// A tensor that does not hold what it must.
pub(super) struct Flaw {
    pub(super) tensor: String,
    pub(super) expected: String,
    pub(super) got: String,
}

/// Beyond this a sum of counts could not be told from an overflow.
const MOST_TOKENS: u64 = 1 << 48;
const MOST_EXPERTS: usize = 1 << 16;

pub(super) fn check(observation: &Observation) -> Result<(), Flaw> {
    for (layer, seen) in observation.layers.iter().enumerate() {
        if let Some(routing) = &seen.routing {
            check_routing(layer, routing)?;
        }
        for (&site, moments) in &seen.inputs {
            check_input(layer, site, moments)?;
        }
    }
    Ok(())
}

fn check_routing(layer: usize, routing: &RoutingSums) -> Result<(), Flaw> {
    use RoutingField::{
        Coactivation, Counts, GateSums, GatedOutputNorms, OutputNorms, OutputPeaks, OutputSums,
        Tokens, TopK,
    };
    let flaw = |field, expected: String, got: String| {
        let tensor = Name { layer, field: Field::Routing(field) }.to_string();
        Err(Flaw { tensor, expected, got })
    };
    let (n, tokens, top_k) = (routing.experts(), routing.tokens, routing.top_k);
    if tokens > MOST_TOKENS {
        return flaw(Tokens, format!("at most {MOST_TOKENS}"), tokens.to_string());
    }
    if n > MOST_EXPERTS {
        return flaw(Counts, format!("at most {MOST_EXPERTS} experts"), n.to_string());
    }
    if top_k > n {
        return flaw(TopK, format!("at most {n}, the number of experts"), top_k.to_string());
    }
    if let Some(count) = routing.counts.iter().find(|&&count| count > tokens) {
        return flaw(Counts, format!("at most {tokens}, the tokens"), count.to_string());
    }
    let pairs = &routing.coactivation;
    if pairs.len() != n * n {
        return flaw(Coactivation, format!("{} values", n * n), pairs.len().to_string());
    }
    for i in 0..n {
        for j in 0..=i {
            let (below, above) = (pairs[i * n + j], pairs[j * n + i]);
            let most = routing.counts[i].min(routing.counts[j]);
            if i == j && below != 0 {
                return flaw(Coactivation, "a zero diagonal".into(), format!("{below} at {i}"));
            }
            if below != above {
                let got = format!("{below} and {above} for experts {i} and {j}");
                return flaw(Coactivation, "a symmetric matrix".into(), got);
            }
            if below > most {
                let got = format!("{below} for experts {i} and {j}");
                return flaw(Coactivation, format!("at most {most}, as often as chosen"), got);
            }
        }
    }
    let sum = |counts: &[u64]| counts.iter().map(|&count| u128::from(count)).sum::<u128>();
    let (wide, k) = (u128::from(tokens), top_k as u128);
    if sum(&routing.counts) != wide * k {
        let expected = format!("a sum of {tokens} · {top_k}");
        return flaw(Counts, expected, sum(&routing.counts).to_string());
    }
    if sum(pairs) != wide * k * k.saturating_sub(1) {
        let expected = format!("a sum of {tokens} · {top_k} · ({top_k} − 1)");
        return flaw(Coactivation, expected, sum(pairs).to_string());
    }
    for (field, sums) in [
        (GateSums, &routing.gate_sums),
        (GatedOutputNorms, &routing.gated_output_norms),
        (OutputNorms, &routing.output_norms),
    ] {
        if sums.len() != n {
            return flaw(field, format!("{n} values"), sums.len().to_string());
        }
        if let Some((at, got)) = not_a_sum(sums) {
            return flaw(field, SUM.into(), format!("{got} at {at}"));
        }
    }
    let peaks = &routing.output_peaks;
    if !peaks.is_empty() && peaks.len() != n {
        return flaw(OutputPeaks, format!("{n} values"), peaks.len().to_string());
    }
    if let Some((at, got)) = not_a_sum(peaks) {
        return flaw(OutputPeaks, SUM.into(), format!("{got} at {at}"));
    }
    let outputs = &routing.output_sums;
    if !outputs.len().is_multiple_of(n.max(1)) || (n == 0 && !outputs.is_empty()) {
        return flaw(
            OutputSums,
            format!("as many values of each of {n} experts"),
            outputs.len().to_string(),
        );
    }
    if let Some(at) = outputs.iter().position(|sum| !sum.is_finite()) {
        return flaw(OutputSums, "finite values".into(), format!("{} at {at}", outputs[at]));
    }
    Ok(())
}

fn check_input(layer: usize, site: LinearId, moments: &InputMoments) -> Result<(), Flaw> {
    use InputField::{Calls, SumSquares, Tokens};
    let flaw = |field, expected: String, got: String| {
        let tensor = Name { layer, field: Field::Input(site, field) }.to_string();
        Err(Flaw { tensor, expected, got })
    };
    let InputMoments { tokens, calls, sum_squares } = moments;
    let (tokens, calls) = (*tokens, *calls);
    if site.input_site() != site {
        let expected = format!("sums under {}, whose input it is", site.input_site());
        return flaw(SumSquares, expected, format!("sums under {site}"));
    }
    if tokens > MOST_TOKENS {
        return flaw(Tokens, format!("at most {MOST_TOKENS}"), tokens.to_string());
    }
    if !(tokens.min(1)..=tokens).contains(&calls) {
        return flaw(Calls, format!("{} to {tokens}", tokens.min(1)), calls.to_string());
    }
    if let Some((at, got)) = not_a_sum(sum_squares) {
        return flaw(SumSquares, SUM.into(), format!("{got} at {at}"));
    }
    if tokens == 0
        && let Some(got) = sum_squares.iter().find(|&&sum| sum != 0.0)
    {
        return flaw(SumSquares, "zeros, as no token came".into(), got.to_string());
    }
    Ok(())
}

const SUM: &str = "finite values, none negative";

fn not_a_sum(sums: &[f64]) -> Option<(usize, f64)> {
    let bad = |sum: &f64| !sum.is_finite() || sum.is_sign_negative();
    sums.iter().position(bad).map(|at| (at, sums[at]))
}

//! What sums over tokens must fulfil: held to when a layer is done, and when an observation is written
//! or read.

use moeprune_core::{
    InputMoments, RoutingSums,
    observation::{Kind, Shape, Statistic, Statistics, Values},
};

/// A row of the sums that does not hold what it must.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) row: &'static str,
    pub(crate) expected: String,
    pub(crate) got: String,
}

impl Flaw {
    fn new(row: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Self { row, expected: expected.into(), got: got.to_string() }
    }
}

/// Beyond this a sum of counts could not be distinguished from an overflow.
const MOST_TOKENS: u64 = 1 << 48;
const MOST_EXPERTS: usize = 1 << 16;

/// As many choices as tokens ask for, in pairs that agree with them, and finite sums.
pub(crate) fn check_routing(routing: &RoutingSums) -> Result<(), Flaw> {
    let flaw = |row, expected: String, got: String| Err(Flaw::new(row, expected, got));
    let (n, tokens, top_k) = (routing.experts(), routing.tokens, routing.top_k);
    if tokens > MOST_TOKENS {
        return flaw("tokens", format!("at most {MOST_TOKENS}"), tokens.to_string());
    }
    if n > MOST_EXPERTS {
        return flaw("counts", format!("at most {MOST_EXPERTS} experts"), n.to_string());
    }
    if top_k > n {
        return flaw("top_k", format!("at most {n}, the number of experts"), top_k.to_string());
    }
    if let Some(count) = routing.counts.iter().find(|&&count| count > tokens) {
        return flaw("counts", format!("at most {tokens}, the tokens"), count.to_string());
    }
    check_lengths(routing)?;
    check_pairs(routing)?;
    let sum = |counts: &[u64]| counts.iter().map(|&count| u128::from(count)).sum::<u128>();
    let (wide, k) = (u128::from(tokens), top_k as u128);
    let counted = sum(&routing.counts);
    if counted != wide * k {
        return flaw("counts", format!("a sum of {tokens} · {top_k}"), counted.to_string());
    }
    let paired = sum(&routing.coactivation);
    if !routing.coactivation.is_empty() && paired != wide * k * k.saturating_sub(1) {
        let expected = format!("a sum of {tokens} · {top_k} · ({top_k} − 1)");
        return flaw("coactivation", expected, paired.to_string());
    }
    check_floats(routing)
}

/// Symmetric, a zero diagonal, and no pair more often than either of it.
fn check_pairs(routing: &RoutingSums) -> Result<(), Flaw> {
    let flaw = |expected: String, got| Err(Flaw::new("coactivation", expected, got));
    let (n, pairs) = (routing.experts(), &routing.coactivation);
    if pairs.is_empty() {
        return Ok(());
    }
    for i in 0..n {
        for j in 0..=i {
            let (below, above) = (pairs[i * n + j], pairs[j * n + i]);
            let most = routing.counts[i].min(routing.counts[j]);
            if i == j && below != 0 {
                return flaw("a zero diagonal".into(), format!("{below} at {i}"));
            }
            if below != above {
                let got = format!("{below} and {above} for experts {i} and {j}");
                return flaw("a symmetric matrix".into(), got);
            }
            if below > most {
                let got = format!("{below} for experts {i} and {j}");
                return flaw(format!("at most {most}, as often as chosen"), got);
            }
        }
    }
    Ok(())
}

/// No more calls than tokens, and finite sums.
pub(crate) fn check_input(moments: &InputMoments) -> Result<(), Flaw> {
    let flaw = |row, expected: String, got: String| Err(Flaw::new(row, expected, got));
    let InputMoments { tokens, calls, sum_squares } = moments;
    let (tokens, calls) = (*tokens, *calls);
    if tokens > MOST_TOKENS {
        return flaw("tokens", format!("at most {MOST_TOKENS}"), tokens.to_string());
    }
    if calls > tokens {
        return flaw("calls", format!("at most {tokens}, the tokens"), calls.to_string());
    }
    check_lengths(moments)?;
    check_floats(moments)?;
    if tokens == 0
        && let Some(got) = sum_squares.iter().find(|&&sum| sum != 0.0)
    {
        return flaw("sum_squares", "zeros, as no token came".into(), got.to_string());
    }
    Ok(())
}

/// As many values in every row as its shape has.
fn check_lengths<S: Statistics>(sums: &S) -> Result<(), Flaw> {
    let n = sums.experts();
    let wrong = |row: &&Statistic<S>| {
        let len = row.of(sums).len();
        let missing = len == 0 && row.may_be_missing();
        !missing && row.shape.dims(n, len).iter().product::<usize>() != len
    };
    let Some(row) = S::ROWS.iter().find(wrong) else { return Ok(()) };
    let expected = match row.shape {
        Shape::PerPair => format!("{} values", n * n),
        Shape::PerExpertFeature => format!("as many values of each of {n} experts"),
        Shape::Scalar | Shape::PerExpert | Shape::PerInputFeature => format!("{n} values"),
    };
    Err(Flaw::new(row.name, expected, row.of(sums).len()))
}

/// Finite values in every row, and none negative but where a sum may be.
fn check_floats<S: Statistics>(sums: &S) -> Result<(), Flaw> {
    for row in S::ROWS {
        let Values::Floats(values) = row.of(sums) else { continue };
        let (bad, expected): (fn(&f64) -> bool, _) = match row.kind {
            Kind::SignedSum | Kind::Constant => (|sum| !sum.is_finite(), "finite values"),
            Kind::Sum | Kind::Max | Kind::Count => {
                (|sum| !sum.is_finite() || sum.is_sign_negative(), "finite values, none negative")
            }
        };
        if let Some(at) = values.iter().position(bad) {
            return Err(Flaw::new(row.name, expected, format!("{} at {at}", values[at])));
        }
    }
    Ok(())
}

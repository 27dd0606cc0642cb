//! A formula of what a run costs, fitted to counts.

use std::fmt;

use nalgebra::{DMatrix, DVector};

/// What is paid for in a run, each a count of something that grows with the model or the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    /// Weights that are read and brought into the order of products.
    pub(super) weights: f64,
    /// Multiplications and additions of products: tokens by the weights that each is multiplied by.
    pub(super) multiply_adds: f64,
    /// Numbers that are handled one by one: tokens by layers, experts per token and the width.
    pub(super) numbers: f64,
    /// Products of a query and a key, one per feature.
    pub(super) scores: f64,
}

/// How many terms a formula has: those of a cost, and what every run takes.
const TERMS: usize = 5;

impl Cost {
    fn terms(self) -> [f64; TERMS] {
        [1.0, self.weights, self.multiply_adds, self.numbers, self.scores]
    }
}

/// Instructions of each term.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fit([f64; TERMS]);

impl Fit {
    /// The coefficients, none below zero, that make the sum of squared relative errors least; `None` if the costs do
    /// not determine them.
    pub(super) fn of(counted: &[(Cost, f64)]) -> Option<Self> {
        let mut used = [true; TERMS];
        loop {
            let terms: Vec<usize> = (0..TERMS).filter(|&term| used[term]).collect();
            let solution = solve(counted, &terms)?;
            let lowest = (0..terms.len()).min_by(|&a, &b| solution[a].total_cmp(&solution[b]))?;
            if solution[lowest] >= 0.0 {
                let mut fit = [0.0; TERMS];
                terms.iter().zip(solution.iter()).for_each(|(&term, &value)| fit[term] = value);
                return Some(Self(fit));
            }
            used[terms[lowest]] = false;
        }
    }

    /// Instructions of a run of this cost.
    pub(super) fn at(&self, cost: &Cost) -> f64 {
        self.0.iter().zip(cost.terms()).map(|(each, times)| each * times).sum()
    }
}

/// Least squares of relative errors. Columns are scaled to be comparable.
fn solve(counted: &[(Cost, f64)], terms: &[usize]) -> Option<DVector<f64>> {
    let entry = |row: usize, column: usize| {
        let (cost, count) = counted[row];
        cost.terms()[terms[column]] / count
    };
    let matrix = DMatrix::from_fn(counted.len(), terms.len(), entry);
    let scales: Vec<f64> = matrix.column_iter().map(|column| column.norm()).collect();
    if counted.len() < terms.len() || scales.iter().any(|&scale| scale <= 0.0) {
        return None;
    }
    let scaled = DMatrix::from_fn(counted.len(), terms.len(), |r, c| matrix[(r, c)] / scales[c]);
    let solved = scaled.svd(true, true).solve(&DVector::repeat(counted.len(), 1.0), 1e-9).ok()?;
    Some(DVector::from_fn(terms.len(), |row, _| solved[row] / scales[row]))
}

impl fmt::Display for Fit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [always, weights, multiply_adds, numbers, scores] = self.0;
        write!(
            formatter,
            "instructions = {:.2} G + {weights:.3} per weight + {multiply_adds:.4} per multiply-add + {numbers:.2} per \
             token, layer, expert of it and feature + {scores:.4} per query, key and feature",
            always / 1e9
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_found_again() {
        let check = |formula: [f64; TERMS]| {
            let of = |weights: f64, tokens: f64, layers: f64| Cost {
                weights,
                multiply_adds: tokens * weights / 4.0,
                numbers: tokens * layers * 100.0,
                scores: tokens * tokens * layers,
            };
            let costs = [
                of(1e6, 100.0, 1.0),
                of(2e6, 100.0, 1.0),
                of(2e6, 400.0, 2.0),
                of(4e6, 100.0, 3.0),
                of(8e6, 800.0, 2.0),
                of(1e6, 3000.0, 1.0),
            ];
            let counted: Vec<(Cost, f64)> =
                costs.iter().map(|cost| (*cost, Fit(formula).at(cost))).collect();
            let found = Fit::of(&counted).unwrap();
            for (cost, count) in &counted {
                assert!((found.at(cost) / count - 1.0).abs() < 1e-6, "{found}");
            }
        };
        check([1e9, 3.0, 0.25, 8.0, 0.5]);
        check([1e6, 3.0, 0.25, 0.0, 0.5]);
    }

    #[test]
    fn too_few_counts_determine_nothing() {
        let cost = Cost { weights: 1.0, multiply_adds: 1.0, numbers: 1.0, scores: 1.0 };
        assert_eq!(Fit::of(&[(cost, 1.0), (cost, 1.0)]), None);
    }
}

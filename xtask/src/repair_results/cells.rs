//! Which prunings are measured.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use moeprune::{Recipe, Registry, core::Sparsity};

/// Prunings that make a table together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// The model as it is
    Unpruned,
    /// Experts alone, by REAP
    Experts,
    /// Experts by REAP, then weights up to a total
    Totals,
    /// Experts alone, by other criteria
    Criteria,
    /// Calibrated on one kind of problems, measured on another
    Kinds,
    /// Calibration texts of several sizes
    Tokens,
    /// Other calibration seeds for what the first groups measured
    Seeds,
    /// Weights up to a total after other criteria
    CriteriaTotals,
}

/// One pruning.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    /// Share of the experts that goes; 0 for none.
    pub(super) experts: f64,
    /// Share of the decoder Linears' weights that goes or is zeroed; `None`: nothing but experts.
    pub(super) total: Option<f64>,
    pub(super) criterion: &'static str,
    pub(super) repair: bool,
    /// Of the calibration.
    pub(super) seed: u64,
    pub(super) text: Text,
    /// Blocks of calibration text.
    pub(super) blocks: usize,
}

/// What the calibration text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    All,
    /// Money and work.
    Earning,
    /// Everything else.
    Having,
    /// The first kind; repair is fitted to an eighth as much of the second too.
    EarningWithHaving,
}

impl Text {
    /// What it is called; a single kind's file has this name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Earning => "earning",
            Self::Having => "having",
            Self::EarningWithHaving => "earning, an eighth of having",
        }
    }
}

pub(super) const SHARES: [f64; 4] = [0.125, 0.25, 0.5, 0.75];

/// Totals, and the shares of the experts that go first.
pub(super) const TOTALS: [(f64, &[f64]); 4] = [
    (0.4, &[0.0, 0.125, 0.25, 0.375]),
    (0.5, &[0.0, 0.125, 0.25, 0.5]),
    (0.6, &[0.0, 0.125, 0.25, 0.5, 0.625]),
    (0.7, &[0.0, 0.25, 0.5, 0.75]),
];

pub(super) const REAP: &str = "reap";
pub(super) const OTHERS: [&str; 4] = ["stun", "ean", "reconstruction", "random"];
pub(super) const KINDS: [Text; 3] = [Text::Earning, Text::Having, Text::EarningWithHaving];
pub(super) const KIND_SHARES: [f64; 2] = [0.25, 0.5];

/// Blocks of [`BLOCK`] tokens.
pub(super) const BLOCKS: usize = 64;
pub(super) const BLOCK: usize = 256;
/// Fewer and more of them.
pub(super) const MORE_BLOCKS: [usize; 4] = [4, 16, 64, 256];
pub(super) const TOKEN_SHARES: [f64; 2] = [0.5, 0.75];

/// All prunings, the most telling ones first.
pub(super) fn all() -> Vec<(Group, Cell)> {
    let mut cells = vec![(Group::Unpruned, Cell::experts(0.0, false))];
    for share in [0.5, 0.75, 0.25, 0.125] {
        for repair in [false, true] {
            cells.push((Group::Experts, Cell::experts(share, repair)));
        }
    }
    for (total, shares) in TOTALS {
        cells.extend(totals(total, shares).map(|cell| (Group::Totals, cell)));
    }
    for criterion in OTHERS {
        for share in [0.5, 0.25, 0.75, 0.125] {
            let both = [false, true].map(|repair| Cell::experts(share, repair));
            cells.extend(both.map(|cell| (Group::Criteria, Cell { criterion, ..cell })));
        }
    }
    for (share, text) in KIND_SHARES.iter().flat_map(|&s| KINDS.map(|text| (s, text))) {
        // Without repair the second text is not used.
        let both = [false, true].map(|repair| Cell { text, ..Cell::experts(share, repair) });
        let both = both.into_iter().filter(|cell| cell.repair || text != Text::EarningWithHaving);
        cells.extend(both.map(|cell| (Group::Kinds, cell)));
    }
    for (share, blocks) in TOKEN_SHARES.iter().flat_map(|&s| MORE_BLOCKS.map(|b| (s, b))) {
        let both = [false, true].map(|repair| Cell::experts(share, repair));
        cells.extend(both.map(|cell| (Group::Tokens, Cell { blocks, ..cell })));
    }
    for group in [Group::Experts, Group::Totals] {
        let first: Vec<Cell> =
            cells.iter().filter(|(of, _)| *of == group).map(|(_, cell)| cell.clone()).collect();
        for cell in first {
            cells.extend([1, 2].map(|seed| (Group::Seeds, Cell { seed, ..cell.clone() })));
        }
    }
    for criterion in OTHERS {
        for (total, shares) in TOTALS {
            let largest = &shares[shares.len() - 1..];
            let of = |cell| (Group::CriteriaTotals, Cell { criterion, ..cell });
            cells.extend(totals(total, largest).map(of));
        }
    }
    let mut unique: Vec<(Group, Cell)> = Vec::new();
    for (group, cell) in cells {
        if !unique.iter().any(|(_, known)| *known == cell) {
            unique.push((group, cell));
        }
    }
    unique
}

fn totals(total: f64, shares: &[f64]) -> impl Iterator<Item = Cell> {
    let with_and_without = shares.iter().flat_map(|&share| [(share, false), (share, true)]);
    with_and_without
        .filter(|(share, repair)| *share > 0.0 || !repair)
        .map(move |(share, repair)| Cell { total: Some(total), ..Cell::experts(share, repair) })
}

impl Cell {
    /// A share of the experts by REAP, with the first seed and the usual calibration.
    pub(super) fn experts(experts: f64, repair: bool) -> Self {
        Self {
            experts,
            total: None,
            criterion: REAP,
            repair,
            seed: 0,
            text: Text::All,
            blocks: BLOCKS,
        }
    }

    pub(super) fn is_unpruned(&self) -> bool {
        self.experts == 0.0 && self.total.is_none()
    }

    /// The recipe: experts, repair if asked for, then Wanda masks with one ratio for all layers.
    pub(super) fn recipe(&self) -> Result<Recipe> {
        let repair = if self.repair { "refit" } else { "none" };
        let mut recipe = Recipe::from_toml(&format!("repair = \"{repair}\""))?;
        recipe.sparsity = Sparsity::new(self.total.unwrap_or(self.experts))?;
        recipe.experts.sparsity = Sparsity::new(self.experts)?;
        recipe.weights.allocation = "uniform".into();
        recipe.calibration.samples = self.blocks;
        recipe.calibration.sequence_len = BLOCK;
        recipe.calibration.seed = self.seed;
        let criterion = match self.criterion {
            "random" => format!("random:seed={}", self.seed),
            other => other.to_owned(),
        };
        Registry::built_in().choose_experts_by(&mut recipe, &criterion)?;
        Ok(recipe)
    }

    pub(super) fn file_name(&self) -> String {
        let total = self.total.map_or(String::new(), |total| format!("-total{total}"));
        let repair = if self.repair { "refit" } else { "none" };
        format!(
            "{}{}{total}-{repair}-{}-blocks{}-seed{}",
            self.criterion,
            self.experts,
            self.text.name().replace(", ", "-").replace(' ', "-"),
            self.blocks,
            self.seed
        )
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unpruned() {
            return f.write_str("unpruned");
        }
        write!(f, "{} % of the experts by {}", 100.0 * self.experts, self.criterion)?;
        if let Some(total) = self.total {
            write!(f, ", {} % in all", 100.0 * total)?;
        }
        let repair = if self.repair { "repaired" } else { "cut" };
        let (text, blocks, seed) = (self.text.name(), self.blocks, self.seed);
        write!(f, ", {repair} (text {text}, {blocks} blocks, seed {seed})")
    }
}

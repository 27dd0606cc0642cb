//! A small model of every kind of family that differs in what memory it takes.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::delegate;

/// A kind, and what makes a model of it of about a gigabyte.
struct Kind {
    name: &'static str,
    /// Arguments of `make-checkpoint`.
    made_by: &'static [&'static str],
    /// Whether experts are in codes, which are not reconstructed, and repaired only if they may be rounded again.
    in_codes: bool,
}

const KINDS: [Kind; 8] = [
    Kind {
        name: "many experts, residual MLP",
        made_by: &["arctic", "--layers", "3", "--experts", "24", "--scale", "4"],
        in_codes: false,
    },
    Kind {
        name: "few wide experts",
        made_by: &["mixtral-8x7b", "--layers", "4", "--scale", "2"],
        in_codes: false,
    },
    Kind {
        name: "many narrow experts",
        made_by: &["qwen3-30b-a3b", "--layers", "3", "--experts", "64"],
        in_codes: false,
    },
    Kind {
        name: "latent attention, shared experts",
        made_by: &["deepseek-v3", "--layers", "5", "--experts", "32", "--scale", "4"],
        in_codes: false,
    },
    Kind {
        name: "latent attention in FP8",
        made_by: &["deepseek-v3-fp8", "--layers", "5", "--experts", "64", "--scale", "4"],
        in_codes: true,
    },
    Kind {
        name: "fused experts in MXFP4",
        made_by: &["gpt-oss-120b", "--layers", "3", "--experts", "32"],
        in_codes: true,
    },
    Kind {
        name: "fused experts",
        made_by: &["gpt-oss-120b-bf16", "--layers", "2", "--experts", "32", "--scale", "2"],
        in_codes: false,
    },
    Kind {
        name: "delta net, fused experts",
        made_by: &["qwen3.5-35b-a3b", "--layers", "4", "--experts", "64"],
        in_codes: false,
    },
];

/// A model that was made.
pub(super) struct Made<'a> {
    pub(super) name: &'a str,
    pub(super) model: &'a Path,
    pub(super) calibration: &'a Path,
    pub(super) in_codes: bool,
}

/// Makes a model of each kind whose name contains `only`, calls `visit`, and removes it.
pub(super) fn each(
    folder: &Path,
    only: Option<&str>,
    mut visit: impl FnMut(Made<'_>) -> Result<()>,
) -> Result<()> {
    let wanted = KINDS.iter().filter(|kind| only.is_none_or(|text| kind.name.contains(text)));
    let mut visited = 0;
    for &Kind { name, made_by, in_codes } in wanted {
        let scratch = tempfile::Builder::new().prefix("moeprune-memory-").tempdir_in(folder)?;
        let model = scratch.path().join("model");
        let calibration = scratch.path().join("text.jsonl");
        make(&model, &calibration, made_by)?;
        visit(Made { name, model: &model, calibration: &calibration, in_codes })?;
        visited += 1;
    }
    ensure!(visited > 0, "no kind is called {}", only.unwrap_or_default());
    Ok(())
}

fn make(model: &Path, calibration: &Path, made_by: &[&str]) -> Result<()> {
    let mut command = delegate::command(&delegate::MAKE_CHECKPOINT);
    command.arg("--model").args(made_by).args(["--vocab", "8192", "--calibration"]);
    let status = command.arg(calibration).arg(model).status()?;
    ensure!(status.success(), "make-checkpoint of {} failed", made_by.join(" "));
    Ok(())
}

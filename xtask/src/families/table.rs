//! `docs/families.md` as text. `tests/tests/docs_families.rs` has this file too.

use moeprune::{
    checkpoint::{ExpertStorage, Family, FamilyFacts},
    core::ExtraPolicy,
    serving::{Engine, EngineContainer, FamilyAnswer, WeightForm, YesNo},
};

const HEAD: &str = "\
# Families

Built-in model families, from their descriptors (`crates/moeprune-checkpoint/families`). This file is
made by `cargo xtask families --write`; do not edit it.

* **runs**: `yes`, or `cut only` where a model can be planned by router distance, applied and verified, but not run.
* **attention**, **router**: kinds, as descriptors name them. Several kinds of attention: layers differ.
* **groups**: whether the router may select groups of experts first, so that groups lose equally many.
* **experts in files**: a tensor for each matrix of each expert (`separate`), or all experts of a layer in one (`fused`).
* **besides**: what else there may be beside the routed experts.
* **MTP**: what pruning does with layers for multi-token prediction unless `--mtp` says otherwise; `-` if the descriptor has none.

| family | `model_type` | runs | attention | router | groups | experts in files | besides | MTP |
|---|---|---|---|---|---|---|---|---|
";

const ENGINES_HEAD: &str = "
## Engines

Which engines load a family, from `crates/moeprune/engines`, where each answer has its source and its date. `unknown`: no source was
found. Most answers were read off the engine's own list of models, and not tried.

";

const FORMS_HEAD: &str = "
Which engines load weights that are not plain numbers, of families that they load. Small models were tried in transformers, pruned ones
included; the other engines were not run. GPTQModel 7.7 loads GPTQ (not Mixtral's) and AWQ.

";

const FORMATS: &str = "
## Quantised checkpoints

A form of storage is recognised by the tensors that are there, in any family: where `{expert}.up_proj.weight` is expected, all tensors
under `{expert}.up_proj.` belong to it, under any name. Forms may differ between parts and between experts.

* **cut**: whole experts are removed, byte for byte, by router distance or a keep-list; configs that name experts are rewritten. Any form
  works, known or not, as long as routers are numbers and there is a tensor (or several) for each matrix of each expert.
* **observed**, **zeroed**: whether values are decoded to run the model, and whether single weights can be made zero. Zeros go into the
  codes; scales and zero points stay. New values (SparseGPT, averages of experts) have no room in codes and are refused.
* **repaired**: whether `--repair refit --requantise` writes new weights in the form.

| form | recognised by | cut | observed | zeroed | repaired |
|---|---|---|---|---|---|
| FP8 in blocks | `weight` F8_E4M3, `weight_scale_inv` (or `weight_scale`, `scale`) per block | yes | yes | yes | yes |
| FP8 per channel | `weight_scale` per output | yes | yes | yes | yes |
| FP8 per tensor | `weight_scale` of one number | yes | yes | yes | yes |
| INT4 packed (compressed-tensors) | `weight_packed` I32, `weight_scale`, `weight_zero_point` if asymmetric | yes | yes | yes | symmetric only |
| MXFP4, per expert | `weight_packed` U8, `weight_scale` U8 | yes | yes | yes | yes |
| MXFP4, gpt-oss | `gate_up_proj_blocks`, `_scales` and so on, all experts in one tensor | yes | yes | yes | yes |
| NVFP4 (Model-Optimizer, compressed-tensors) | `weight` or `weight_packed` U8, `weight_scale` F8_E4M3, and a scale of one number | yes | yes | yes | yes |
| GPTQ | `qweight` packed along inputs, `qzeros`, `scales`, `g_idx` | yes | yes | yes; in version 1, weights whose group has a stored zero of 15 have no zero and are refused, with their number | no |
| AWQ (GEMM) | `qweight` packed along outputs, `qzeros`, `scales` | yes | yes | yes | no |
| MXFP8, INT8, packed INT8, GPTQ of other widths | the same names, other types | yes | no | no | no |
| any other (Quark, AutoRound, EXL3, SVD, AWQ for GEMV or Marlin) | nothing | yes | no | no | no |
| GGUF, any type of ggml ([gguf.md](gguf.md)) | a `.gguf` file, or several that are numbered | yes | no; statistics come from an imatrix, or from the model in safetensors | no | no |
";

/// The whole file.
pub(crate) fn page() -> String {
    let rows: String = Family::builtins().iter().map(row).collect();
    let built_in = Engine::built_in();
    let (engines, forms) = (engines(&built_in), forms(&built_in));
    format!("{HEAD}{rows}{FORMATS}{ENGINES_HEAD}{engines}{FORMS_HEAD}{forms}")
}

/// A row per form of weights, a column per engine.
fn forms(engines: &[Engine]) -> String {
    let head: String =
        engines.iter().map(|engine| format!(" {} {} |", engine.name, engine.version)).collect();
    let mut text = format!("| form |{head}\n|{}\n", "---|".repeat(engines.len() + 1));
    for form in WeightForm::ALL {
        let cell = |engine: &Engine| {
            let answer = engine.forms.get(&form);
            let loads = match answer.map_or(YesNo::Unknown, |answer| answer.answer) {
                YesNo::Yes => "yes",
                YesNo::No => "no",
                YesNo::Unknown => "unknown",
            };
            match answer.and_then(|answer| answer.says.as_deref()) {
                Some(says) => format!(" {loads}: {says} |"),
                None => format!(" {loads} |"),
            }
        };
        text += &format!("| {form} |{}\n", engines.iter().map(cell).collect::<String>());
    }
    text
}

/// A row per family, a column per engine.
fn engines(engines: &[Engine]) -> String {
    let name = |engine: &Engine| match engine.container {
        EngineContainer::Safetensors => format!("{} {}", engine.name, engine.version),
        EngineContainer::Gguf => format!("{} {}, converted to GGUF", engine.name, engine.version),
    };
    let head: String = engines.iter().map(|engine| format!(" {} |", name(engine))).collect();
    let rule = "---|".repeat(engines.len() + 1);
    let mut text = format!("| family |{head}\n|{rule}\n");
    for family in Family::builtins() {
        let cell = |engine: &Engine| loads(engine.families.get(family.name()));
        let cells: String = engines.iter().map(|engine| format!(" {} |", cell(engine))).collect();
        text += &format!("| {} |{cells}\n", family.name());
    }
    text
}

fn loads(answer: Option<&FamilyAnswer>) -> String {
    let Some(FamilyAnswer { loads, until, .. }) = answer else { return "unknown".into() };
    match (loads.answer, until) {
        (YesNo::Yes, _) => "yes".into(),
        (YesNo::No, None) => "no".into(),
        (YesNo::No, Some(version)) => format!("up to {version}"),
        (YesNo::Unknown, _) => "unknown".into(),
    }
}

fn row(family: &Family) -> String {
    let facts = family.facts();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        family.name(),
        listed(family.model_types()),
        if facts.runs() { "yes" } else { "cut only" },
        listed(&facts.attention),
        facts.router,
        if facts.groups { "yes" } else { "-" },
        match facts.storage {
            ExpertStorage::Separate => "separate",
            ExpertStorage::Fused => "fused",
            ExpertStorage::Either => "separate or fused",
        },
        besides(&facts),
        extra(facts.extra),
    )
}

fn listed<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

fn extra(policy: Option<ExtraPolicy>) -> &'static str {
    match policy {
        None => "-",
        Some(ExtraPolicy::Prune) => "prune",
        Some(ExtraPolicy::Keep) => "keep",
        Some(ExtraPolicy::Drop) => "drop",
    }
}

fn besides(facts: &FamilyFacts) -> String {
    let all = [
        (facts.shared, "shared experts"),
        (facts.dense, "dense layers"),
        (facts.residual, "residual MLP"),
    ];
    let there: Vec<&str> = all.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
    if there.is_empty() { "-".into() } else { there.join(", ") }
}

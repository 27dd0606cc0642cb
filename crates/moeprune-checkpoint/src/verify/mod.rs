//! Checking a pruned checkpoint against the one it came from.

mod achieved;
mod candidate;
mod compare;
mod difference;
mod header;
mod hint;
mod origin;
mod repaired;
mod report;
mod survivors;

use std::{collections::BTreeSet, io, path::Path};

use moeprune_core::{
    ExtraPolicy, FeedForward, Fingerprint, LinearId, Plan, Provenance, SameModel, TensorId, plural,
};
use moeprune_files::ReadAt;
use rayon::prelude::*;

pub use self::report::{Check, LinearZeros, SparsityReport, VerifyReport};
use self::{
    compare::{Finding, Item, MayZero, Models},
    header::check_header,
    origin::Origins,
    repaired::Repairs,
};
use crate::{
    Checkpoint, Error, StoredTensor,
    output::{auxiliary_files, open, pieces, place_of_copy},
};

/// Checks a pruned checkpoint against its source, reading every byte of both once.
///
/// With a plan, the experts must be those it names and averages are computed again; weights may
/// have been zeroed only if it has an unstructured part. Without one, `moeprune-report.json` in
/// `out` says which experts these are (or which clusters they may be the average of), and if no
/// layer has a ratio there, no weight may have been zeroed. A report that is wrong makes checks
/// fail; one about another source is passed over. Without either, experts are matched to the
/// source by their router rows, and it is allowed that weights were zeroed.
///
/// Routers may have zeros only where other weights may and the plan, or else the report, promises that
/// routers are pruned too ([`moeprune_core::Promises`]). What is checked:
///
/// | check | passes if |
/// |---|---|
/// | `opens` | config, index and headers agree with each other |
/// | `report` | `moeprune-report.json` can be read; made only if it cannot |
/// | `plan` | the plan was made for the source, and its layers fit it |
/// | `architecture` | nothing but the number of experts differs, and layers behind the decoder's are there if the plan leaves them |
/// | `config.json` | nothing but the expert count differs, and where single experts are named their numbers, character by character, in files beside it that say how modules are quantised too; the count of layers behind the decoder's is 0 if there are none any more |
/// | `index` | the announced size is the size of the tensors |
/// | `tensor set` | it has the source's tensors but those of dropped experts and layers, each of the same type; layers behind the decoder's are still in a file of their own |
/// | `auxiliary files` | tokenizer and other files are those of the source, whose card is `README.base.md` ([`place_of_copy`]) |
/// | `survivors` | each expert comes from the source or is an average of its experts |
/// | `embeddings, norms, head` | bit for bit the source's; tensors carried over too |
/// | `routers` | the survivors' rows, bit for bit, or zero where that is allowed |
/// | `experts` | the survivors' weights, or zero where that is allowed; with a repair the down projections and their biases in layers that lost experts are what the report has hashes of, and may be anything where it has none or where weights were zeroed later; what it says was left or taken back is bit for bit |
/// | `attention and dense MLPs` | the source's weights, or zero where that is allowed: nowhere in layers behind the decoder's |
/// | `finite` | no weight is NaN or infinite that is not so in the source, byte for byte |
/// | `repaired layers` | made if experts were repaired and there is a report: it says what that did to each layer that lost experts |
/// | `reported sparsity` | made if experts were repaired: removed and zero weights are as many as the report says |
/// | `sparsity` | the share of removed and zero weights is what the plan, or else the report, asks for, if it promises that |
///
/// No total is promised where the ratio itself was given, layers keep an unweighted mean, or idle
/// experts are left dense; the shares are reported all the same. Otherwise it may be missed by what
/// the plan allows (0.0005) and what rounding takes: one weight per matrix, or one per row if rows
/// are rounded down.
///
/// A wrong output is a report with failed checks, not an error.
///
/// # Errors
/// If the source or the output cannot be read.
pub fn verify(out: &Path, source: &Checkpoint, plan: Option<&Plan>) -> Result<VerifyReport, Error> {
    let mut report = VerifyReport::default();
    // A file that describes itself has a family of its own.
    let family = (!source.describes_itself()).then(|| source.family().clone());
    let pruned = match Checkpoint::open_with(out, family) {
        Ok(pruned) => pruned,
        Err(e) => {
            report.add("opens", Err(e.to_string()));
            return Ok(report);
        }
    };
    report.add("opens", Ok(plural(pruned.tensors().count(), "tensor")));
    let hint = hint::read(&pruned, source)?.unwrap_or_else(|unreadable| {
        report.add("report", Err(unreadable));
        None
    });
    let promises = plan.and_then(Plan::promises).or_else(|| hint.as_ref()?.promises());
    let promises = promises.unwrap_or_default();
    if let Some(plan) = plan {
        report.add("plan", check_plan(source, plan)?);
    }
    let architecture = check_architecture(source, &pruned, plan);
    let comparable = architecture.is_ok();
    report.add("architecture", architecture);
    if !comparable {
        return Ok(report);
    }
    let may_zero = may_zero(plan, hint.as_ref(), promises.zero_routers);
    let MayZero { linears, changed, repairs, .. } = may_zero;
    let origins = match plan {
        Some(plan) => survivors::planned(source, &pruned, plan, hint.as_ref(), may_zero)?,
        None => survivors::unplanned(source, &pruned, hint.as_ref(), may_zero)?,
    };
    let said = if source.describes_itself() { "metadata" } else { "config.json" };
    report.add(said, check_config(source, &pruned, &origins));
    report.add("index", check_index(&pruned));
    let tensor_set = check_tensor_set(source, &pruned);
    report.add("tensor set", tensor_set);
    report.add("auxiliary files", check_auxiliary(source, &pruned)?);
    report.add("survivors", origins.check());

    let models = Models { source, pruned: &pruned, origins: &origins, may_zero };
    let items = compare::items(&pruned);
    let findings = items
        .par_iter()
        .map(|&item| compare::examine(item, models))
        .collect::<Result<Vec<_>, Error>>()?;
    add_findings(&mut report, &pruned, (&items, &findings), changed);
    report.count_zeros((source, &pruned), &items, &findings, promises.rounding);
    if let Some(hint) = hint.as_ref().filter(|_| repairs.any) {
        report.add("repaired layers", repaired::check_layers(source, &pruned, hint));
        achieved::add(&mut report, source, (&items, &findings), (hint, linears));
    }
    report.add_sparsity(total_asked(plan, hint.as_ref()), promises.total);
    Ok(report)
}

/// Where weights may have changed, by the plan or else by the report.
fn may_zero<'h>(
    plan: Option<&Plan>,
    hint: Option<&'h Provenance>,
    zero_routers: bool,
) -> MayZero<'h> {
    let linears = match plan {
        Some(plan) => plan.unstructured.is_some(),
        None => hint.is_none_or(Provenance::may_zero),
    };
    let changed = match plan {
        Some(plan) => plan.unstructured.as_ref().is_some_and(|asked| asked.reconstructs),
        None => hint.is_some_and(|hint| hint.weights_changed),
    };
    let routers = linears && zero_routers;
    MayZero { linears, routers, changed, repairs: Repairs::of(plan, hint) }
}

/// The share of the decoder Linears that the plan asks for, or else the report.
fn total_asked(plan: Option<&Plan>, hint: Option<&Provenance>) -> Option<f64> {
    match plan {
        Some(plan) => plan.unstructured.as_ref().map(|asked| asked.total_sparsity),
        None => hint.and_then(Provenance::total_sparsity),
    }
}

fn check_plan(source: &Checkpoint, plan: &Plan) -> Result<Result<String, String>, Error> {
    let fingerprint = source.fingerprint()?;
    let same = source.is_of(&plan.model_fingerprint)?;
    if same == SameModel::No {
        return Ok(Err(format!(
            "was made for the model {}, but the source is {fingerprint}",
            plan.model_fingerprint
        )));
    }
    for layer in &plan.layers {
        let moe = source.spec().moe_of(layer.layer);
        let experts = moe.map_or(0, |moe| moe.experts);
        let named = layer.survivors.iter().flat_map(|s| s.average_of.iter().chain([&s.source]));
        if layer.experts_before != experts || named.max().is_some_and(|e| *e >= experts) {
            return Ok(Err(format!(
                "layer {} of the source has {experts} experts, which is not what it is for",
                layer.layer
            )));
        }
    }
    let differs = || Fingerprint::difference(&plan.model_fingerprint, &fingerprint);
    Ok(Ok(match same {
        SameModel::StoredOtherwise => {
            format!("{fingerprint}; it was made from the same model, {}", differs())
        }
        SameModel::RoutersRounded => format!(
            "{fingerprint}; it was made from a model whose routers differ by rounding to bf16 only, {}",
            differs()
        ),
        SameModel::RoutersAlike => format!(
            "{fingerprint}; it was made from a model with the same routers in another format, {}",
            differs()
        ),
        _ => fingerprint,
    }))
}

fn check_architecture(
    source: &Checkpoint,
    pruned: &Checkpoint,
    plan: Option<&Plan>,
) -> Result<String, String> {
    let mut expected = source.spec().clone();
    let policy = plan.map(|plan| expected.policy_of(plan));
    let dropped =
        policy.map_or_else(|| pruned.spec().extra.is_none(), |policy| policy == ExtraPolicy::Drop);
    if dropped {
        expected.extra = None;
    }
    // Of layers that are kept, the number of experts stays.
    let end = match policy {
        Some(ExtraPolicy::Keep) => expected.layers.len(),
        _ => expected.extra_layers().end,
    };
    for layer in 0..end {
        let Some(FeedForward::Moe(moe)) =
            expected.layer_mut(layer).map(|layer| &mut layer.feed_forward)
        else {
            continue;
        };
        let Some(got) = pruned.spec().moe_of(layer) else { continue };
        if got.experts > moe.experts {
            let before = plural(moe.experts, "expert");
            return Err(format!("{before} became {}", got.experts));
        }
        moe.experts = got.experts;
    }
    let (is, shall) = (pruned.spec().extra_layers().len(), expected.extra_layers().len());
    if is != shall {
        let layers = plural(is, "layer");
        return Err(format!("it has {layers} behind the decoder's, expected {shall}"));
    }
    expected.undecoded.clone_from(&pruned.spec().undecoded);
    expected.undecoded_experts = pruned.spec().undecoded_experts;
    if expected == *pruned.spec() {
        let layers = plural(expected.layers.len(), "layer");
        Ok(format!("{layers} of width {}", expected.hidden))
    } else {
        Err("the models differ in more than the number of experts".to_owned())
    }
}

fn check_config(
    source: &Checkpoint,
    pruned: &Checkpoint,
    origins: &Origins,
) -> Result<String, String> {
    let index_of = |layer, expert| origins.index_of(layer, expert);
    let layers = 0..pruned.spec().layers.len();
    let kept: Vec<usize> =
        layers.map(|l| pruned.spec().moe_of(l).map_or(0, |moe| moe.experts)).collect();
    if source.describes_itself() {
        return check_header(source, pruned).map(|()| format!("experts kept: {kept:?}"));
    }
    match source.config_of(pruned.spec(), &index_of) {
        Ok(expected) if expected == pruned.config_text() => {
            for (name, expected) in
                source.quantization_files_of(&index_of).map_err(|e| e.to_string())?
            {
                let most = expected.len() as u64;
                let found = pruned.read_file(Path::new(name), most).map_err(|e| e.to_string())?;
                if found.as_deref() != Some(expected.as_bytes()) {
                    return Err(format!(
                        "{name} does not say of the experts what the source's says"
                    ));
                }
            }
            Ok(format!("experts kept: {kept:?}"))
        }
        Ok(expected) => {
            let mut lines = expected.lines().zip(pruned.config_text().lines());
            let at = lines.position(|(a, b)| a != b).map_or(0, |line| line + 1);
            Err(format!("differs from the source's in more than the expert count (line {at})"))
        }
        Err(e) => Err(e.to_string()),
    }
}

fn check_index(pruned: &Checkpoint) -> Result<String, String> {
    let bytes: u64 = pruned.tensors().map(|t| t.bytes).sum();
    match (pruned.is_single_file(), pruned.announced_size()) {
        (true, _) => Ok("a single file needs none".to_owned()),
        (false, Some(announced)) if announced == bytes => Ok(format!("{bytes} bytes")),
        (false, announced) => {
            let announced = announced.map_or_else(|| "nothing".to_owned(), |n| n.to_string());
            Err(format!("total_size announces {announced}, the tensors take {bytes} bytes"))
        }
    }
}

fn check_tensor_set(source: &Checkpoint, pruned: &Checkpoint) -> Result<String, String> {
    let mut of_experts = 0;
    for tensor in pruned.tensors() {
        let origin = source.by_name(&tensor.name);
        // An expert is compared with the one it comes from, which may have another number, and, if it is
        // stored otherwise, other tensors.
        let Some(origin) = origin.or_else(|| tensor.suffix.is_some().then_some(tensor)) else {
            return Err(format!("`{}` is not in the source", tensor.name));
        };
        if expert_of(tensor).is_none() && origin.dtype != tensor.dtype {
            return Err(format!(
                "`{}` was {} and became {}",
                tensor.name, origin.dtype, tensor.dtype
            ));
        }
        of_experts += usize::from(expert_of(tensor).is_some() || tensor.experts.is_some());
    }
    let own_files = source.files_of_extra();
    let moved = |t: &&StoredTensor| own_files.get(&t.name).is_some_and(|file| **file != *t.file);
    if let Some(moved) = pruned.tensors().find(moved) {
        let (name, file) = (&moved.name, &moved.file);
        return Err(format!("`{name}` is in {file} and was in {}", own_files[name]));
    }
    let have: BTreeSet<&str> = pruned.tensors().map(|t| t.name.as_str()).collect();
    let dropped = |t: &StoredTensor| pruned.spec().extra.is_none() && source.is_extra(t);
    let lost = |t: &&StoredTensor| {
        expert_of(t).is_none() && !dropped(t) && !have.contains(t.name.as_str())
    };
    match source.tensors().find(lost) {
        Some(lost) => Err(format!("`{}` of the source is missing", lost.name)),
        None => {
            let tensors = plural(have.len(), "tensor");
            Ok(format!("{tensors}, {of_experts} of them of experts"))
        }
    }
}

fn expert_of(tensor: &StoredTensor) -> Option<usize> {
    tensor.part.and_then(TensorId::expert)
}

fn check_auxiliary(
    source: &Checkpoint,
    pruned: &Checkpoint,
) -> Result<Result<String, String>, Error> {
    let files = auxiliary_files(source)?.copied;
    for relative in &files {
        let place = place_of_copy(relative);
        let same = match copy_is_same(source, pruned, (relative, &place))? {
            // Results of before there were cards have the source's where it was.
            Ok(None) if place != *relative => copy_is_same(source, pruned, (relative, relative))?
                .map(|old| old.filter(|same| *same)),
            same => same,
        };
        let problem = match same {
            Ok(Some(true)) => continue,
            Ok(Some(false)) if place == *relative => "differs from the source's".to_owned(),
            Ok(Some(false)) => format!("differs from {} of the source", relative.display()),
            Ok(None) => "is missing".to_owned(),
            Err(problem) => return Ok(Err(problem)),
        };
        return Ok(Err(format!("{} {problem}", place.display())));
    }
    Ok(Ok(plural(files.len(), "file")))
}

/// Whether the bytes of a file of the source are at a place in the pruned model; `None` if nothing is there.
fn copy_is_same(
    source: &Checkpoint,
    pruned: &Checkpoint,
    (relative, place): (&Path, &Path),
) -> Result<Result<Option<bool>, String>, Error> {
    let copy = match pruned.files().open(place) {
        Ok(Some(copy)) => copy,
        Ok(None) => return Ok(Ok(None)),
        Err(e) => return Ok(Err(e.to_string())),
    };
    let same = same_bytes(&*open(source, relative)?, &*copy);
    Ok(Ok(Some(same.map_err(Error::io("read", source.files().path_of(relative)))?)))
}

/// Compares files piece by piece: a model may bring files of any size.
fn same_bytes(a: &dyn ReadAt, b: &dyn ReadAt) -> io::Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for piece in pieces(a.len()) {
        if a.read_at(piece.clone())? != b.read_at(piece)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One check for each role of tensors, and one for all that weights are finite.
fn add_findings(
    report: &mut VerifyReport,
    pruned: &Checkpoint,
    (items, findings): (&[Item<'_>], &[Finding]),
    changed: bool,
) {
    // A tensor may hold many parts.
    let tensors = |items: &mut dyn Iterator<Item = Item<'_>>| {
        let names = items.filter_map(|item| Some(item.tensor(pruned)?.name.as_str()));
        names.collect::<BTreeSet<&str>>().len()
    };
    let role = |item: Item<'_>| match item.linear() {
        None => "embeddings, norms, head",
        Some((_, LinearId::Router)) => "routers",
        Some((_, LinearId::Expert(..))) => "experts",
        Some(_) => "attention and dense MLPs",
    };
    for name in ["embeddings, norms, head", "routers", "experts", "attention and dense MLPs"] {
        let of_role = || items.iter().zip(findings).filter(|(item, _)| role(**item) == name);
        let different = || of_role().filter(|(_, finding)| finding.difference.is_some());
        let zeroed: u64 = of_role().map(|(_, finding)| finding.zeroed).sum();
        let count = tensors(&mut of_role().map(|(item, _)| *item));
        let first = different().find_map(|(_, finding)| finding.difference.as_deref());
        let repaired = of_role().filter(|(_, finding)| finding.repaired);
        let repaired = tensors(&mut repaired.map(|(item, _)| *item));
        let open = of_role().filter(|(_, finding)| finding.repaired && !finding.confirmed);
        let extent = match tensors(&mut open.map(|(item, _)| *item)) {
            0 => "to what the report says (SHA-256)",
            _ if zeroed > 0 => {
                "to values that cannot be checked where weights were zeroed after that, only counted"
            }
            _ => "which cannot be checked",
        };
        let result = match first {
            None if repaired > 0 && !changed => Ok(format!(
                "{repaired} of {count} tensors were changed to make up for experts that went, \
                 {extent}; {}, all others bit for bit",
                weights(zeroed)
            )),
            None if zeroed == 0 => Ok(format!("{}, bit for bit", plural(count, "tensor"))),
            None if changed => Ok(format!(
                "{}, {} and others changed to make up for them, which cannot be checked",
                plural(count, "tensor"),
                weights(zeroed)
            )),
            None => Ok(format!("{}, {}", plural(count, "tensor"), weights(zeroed))),
            Some(first) => {
                let bad = tensors(&mut different().map(|(item, _)| *item));
                let are = if bad == 1 { "is" } else { "are" };
                Err(format!("{bad} of {} {are} wrong; first: {first}", plural(count, "tensor")))
            }
        };
        report.add(name, result);
    }
    let count = tensors(&mut items.iter().copied());
    report.add("finite", check_finite(findings, count));
}

/// What was only copied may hold what the source holds; all else was scored or computed with.
fn check_finite(findings: &[Finding], count: usize) -> Result<String, String> {
    let of = |copies: bool| {
        let found = findings.iter().filter(move |finding| finding.is_copy == copies);
        found.filter_map(|finding| finding.not_finite.as_ref())
    };
    if let Some(first) = of(false).next() {
        return Err(first.to_string());
    }
    match of(true).next() {
        Some(Error::NotFinite { name, position, value }) => Ok(format!(
            "{}, {} with NaN or infinity as the source has them; first: `{name}` holds {value} at {position}",
            plural(count, "tensor"),
            of(true).count()
        )),
        _ => Ok(plural(count, "tensor")),
    }
}

fn weights(zeroed: u64) -> String {
    format!("{} zeroed", plural(zeroed, "weight"))
}

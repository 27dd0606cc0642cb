//! Whether `prune` repairs the experts that stay when nothing says so, and where it cannot.

use moeprune_core::{
    CorrectionBias, GateSide, ModelSpec, MoeInput, MoeSpec, RouterSpec, Score, ScoredRouter,
    Sparsity,
};
use moeprune_engine::{
    Error as EngineError, Model, REPAIRABLE_ENCODINGS, StoredCodes, codes_of_repaired,
};
use moeprune_model::check_runnable;

use crate::{
    Error, Recipe, Registry, Remedy,
    recipe::{NO_REPAIR, REFIT, StageChoice, Statistics},
};

/// What a user said that a default must not replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Said {
    /// Whether there is calibration text.
    pub text: bool,
    /// By which criterion experts go.
    pub criterion: bool,
    /// Which share of the experts goes.
    pub share: bool,
    /// Which experts stay, by a list.
    pub list: bool,
}

/// The criterion that no other was better than everywhere, and the share of the experts that was not worse,
/// beyond the error, than zeroing weights alone at totals of 40 to 60 %: by docs/repair.md.
const CRITERION: &str = "reap";
const SHARE: f64 = 0.125;

/// A kind of model on which repairs were measured: what is best for it by docs/repair.md.
struct Measured {
    /// The kind, in words.
    kind: &'static str,
    /// Whether a layer is of it.
    is: fn(&MoeSpec) -> bool,
    /// The repair that helps most, [`NO_REPAIR`] if none does.
    repair: &'static str,
}

/// All kinds that were measured; models of others keep their weights unless the recipe names a repair.
const MEASURED: [Measured; 2] = [
    // The embedded model, and one without redundancy between its experts.
    Measured {
        kind: "experts beside the layer, softmax router",
        is: |moe| moe.input == MoeInput::LayerInput && router(moe, Score::Softmax).is_some(),
        repair: REFIT,
    },
    // A model with four of 32 experts per token beside a shared one.
    Measured {
        kind: "sigmoid router with a correction bias, shared expert",
        is: |moe| {
            let router = router(moe, Score::Sigmoid);
            let corrected = |router: &ScoredRouter| router.correction_bias != CorrectionBias::None;
            !moe.shared.is_empty() && router.is_some_and(corrected)
        },
        repair: REFIT,
    },
];

/// The router of a layer, if it has this score and all else of the layer is as in the models that were
/// measured: no groups of experts, weights that multiply what experts write, and no narrower space for them.
fn router(moe: &MoeSpec, score: Score) -> Option<&ScoredRouter> {
    let RouterSpec::Scored(router) = &moe.router else { return None };
    let as_measured =
        router.groups.is_none() && router.gates == GateSide::Output && moe.latent.is_none();
    (router.score == score && as_measured).then_some(router)
}

/// Has a recipe whose repair was named choose experts, where nothing says how, as is best before a repair: by
/// REAP, an eighth of them, or half of a total that is below a quarter. Returns what is to be said about it.
#[must_use]
pub fn experts_before_repair(
    recipe: &mut Recipe,
    registry: &Registry,
    said: Said,
) -> Option<String> {
    let goes = recipe.experts.sparsity > Sparsity::ZERO && !recipe.keeps_listed();
    if recipe.repair.name != REFIT || !goes || said.list || said.criterion && said.share {
        return None;
    }
    let mut changed = recipe.clone();
    choose_experts(&mut changed, said);
    registry.resolve(&mut changed).ok()?;
    *recipe = changed;
    let experts = &recipe.experts;
    Some(format!(
        "note: before a repair, {} of the experts go, by {}, where nothing else is said (--criterion, \
         --expert-sparsity)",
        experts.sparsity, experts.criterion.name
    ))
}

fn choose_experts(recipe: &mut Recipe, said: Said) {
    if !said.criterion {
        recipe.experts.criterion = CRITERION.into();
    }
    if !said.share {
        let share = Sparsity::new(SHARE.min(recipe.sparsity.value() / 2.0));
        recipe.experts.sparsity = share.unwrap_or(recipe.experts.sparsity);
    }
}

/// Has a recipe that says nothing of a repair do what was measured to be best for this kind of model, as
/// `prune` does: repairs, with experts that go by REAP, an eighth of them, or half of a total that is below a
/// quarter. What was said stays.
///
/// The caller decides for which recipes: `prune` uses it for the one that is taken if none is named. A recipe that
/// a user wrote without the key `repair` has none, which [`note_of_recipe_without_repair`] says.
///
/// Returns what is to be said about it; nothing where no expert goes, so that there is nothing to repair.
#[must_use]
pub fn repair_by_default(
    recipe: &mut Recipe,
    model: &dyn Model,
    registry: &Registry,
    said: Said,
) -> Option<String> {
    let goes = recipe.experts.sparsity > Sparsity::ZERO || recipe.keeps_listed();
    if !goes || recipe.repairs() || !registry.has_repair(REFIT) {
        return None;
    }
    let Some(measured) = kind_of(model.spec()) else {
        if let Some(obstacle @ (Obstacle::NotRun(_) | Obstacle::Codes(_))) =
            Obstacle::of(model, recipe, said.text)
        {
            return Some(format!(
                "note: the experts that stay keep their weights: {}",
                obstacle.why()
            ));
        }
        return Some(
            "note: the experts that stay keep their weights, since what a repair does was not measured \
             for this kind of model; repair = \"refit\" asks for one"
                .to_owned(),
        );
    };
    let repair = StageChoice::new(measured.repair);
    if repair.name == NO_REPAIR {
        return None;
    }
    let mut repaired = Recipe { repair, ..recipe.clone() };
    let listed = recipe.keeps_listed() || said.list;
    if !listed {
        choose_experts(&mut repaired, said);
    }
    if let Some(obstacle) = Obstacle::of(model, &repaired, said.text) {
        return Some(format!("note: the experts that stay keep their weights: {}", obstacle.why()));
    }
    if registry.resolve(&mut repaired).is_ok() {
        *recipe = repaired;
    }
    let experts = &recipe.experts;
    let which = match listed {
        true => String::new(),
        false => format!("{} of the experts go, by {}; ", experts.sparsity, experts.criterion.name),
    };
    Some(format!(
        "note: the experts that stay are repaired, which helped models of this kind ({}); {which}--repair \
         none and --recipe arctic do without",
        measured.kind
    ))
}

/// The note on a recipe that a user wrote and that does not say whether experts are repaired, so that they are
/// not; `None` where it says so, or no expert goes. `text`: the recipe as it was written.
#[must_use]
pub fn note_of_recipe_without_repair(text: &str, recipe: &Recipe) -> Option<String> {
    let says = toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("repair"));
    let goes = recipe.experts.sparsity > Sparsity::ZERO;
    (goes && !says && !recipe.repairs()).then(|| {
        "note: the recipe does not say whether the experts that stay are repaired, so they keep their weights; \
         repair = \"refit\" repairs them, and repair = \"none\" says that they are not"
            .to_owned()
    })
}

/// The kind that all layers with experts are of.
fn kind_of(spec: &ModelSpec) -> Option<&'static Measured> {
    const ALL: &[Measured] = &MEASURED;
    let layers: Vec<&MoeSpec> = spec.layers.iter().filter_map(|layer| layer.moe()).collect();
    ALL.iter().find(|measured| !layers.is_empty() && layers.iter().all(|moe| (measured.is)(moe)))
}

/// Refuses a repair that a recipe asks for and that cannot be carried out. `text`: whether there is
/// calibration text.
///
/// # Errors
/// [`Error::Recipe`] if the recipe contradicts itself, else an error of the engine with what would work.
pub fn check_repair(model: &dyn Model, recipe: &Recipe, text: bool) -> Result<(), Error> {
    let asked = [recipe.repairs().then_some(&recipe.repair), recipe.weights.refit.as_ref()];
    if let [_, Some(refit)] = asked
        && refit.name != NO_REPAIR
        && let Some(StoredCodes { name, bits: Some(0..=4), .. }) = codes_of_repaired(model)
    {
        return Err(Error::Recipe(format!(
            "weights.refit = `{}`: weights are stored as {name}, and after some were zeroed, new ones in codes of \
             four bits would round to more zeros than were asked for; leave it out",
            refit.name
        )));
    }
    match asked.into_iter().flatten().find(|repair| repair.name != NO_REPAIR) {
        None if recipe.requantise => Err(Error::Recipe(
            "requantise = true says how a repair writes new weights, and no repair is named: name one \
             (repair = \"refit\"), or leave it out"
                .to_owned(),
        )),
        None => Ok(()),
        Some(repair) => match Obstacle::of(model, recipe, text) {
            None => Ok(()),
            Some(obstacle) => Err(obstacle.into_error(repair)),
        },
    }
}

/// Why experts cannot be repaired.
enum Obstacle {
    /// Statistics of the unpruned model are asked for, instead of running text.
    Stored,
    /// The experts, or something else of the model, cannot be run.
    NotRun(String),
    /// Weights are in codes, and it was not said that new ones may be written so.
    Codes(&'static str),
    /// There is no calibration text.
    NoText,
}

impl Obstacle {
    fn of(model: &dyn Model, recipe: &Recipe, text: bool) -> Option<Self> {
        let spec = model.spec();
        if spec.has_opaque_experts() {
            let problem = "what is stored of the experts is not decoded";
            return Some(Self::NotRun(problem.to_owned()));
        }
        if let Err(problem) = check_runnable(spec) {
            return Some(Self::NotRun(problem.to_string()));
        }
        match codes_of_repaired(model) {
            Some(StoredCodes { name, bits: None, .. }) => {
                return Some(Self::NotRun(format!(
                    "their weights are stored as {name}, and it writes {REPAIRABLE_ENCODINGS} only"
                )));
            }
            Some(StoredCodes { name, .. }) if !recipe.requantise => return Some(Self::Codes(name)),
            _ => {}
        }
        // Where no weight is zeroed no statistics are needed, and the repair takes the text.
        if recipe.weights.statistics == Statistics::Stored && recipe.prunes_weights() {
            return Some(Self::Stored);
        }
        (!text).then_some(Self::NoText)
    }

    fn why(&self) -> String {
        match self {
            Self::Stored => {
                "a repair needs calibration text that goes through the repaired layers, and statistics \
                 are those of the unpruned model (statistics = \"stored\")"
                    .to_owned()
            }
            Self::NotRun(problem) => format!("a repair runs them and writes new weights, and {problem}"),
            Self::Codes(name) => format!(
                "a repair writes new weights, and theirs are stored as {name}, in which they are written only \
                 with requantise = true (--requantise)"
            ),
            Self::NoText => "a repair needs calibration text".to_owned(),
        }
    }

    fn into_error(self, repair: &StageChoice) -> Error {
        let problem = format!("repair = `{}`: {}", repair.name, self.why());
        match self {
            Self::Stored => Error::Recipe(format!(
                "{problem}: use statistics = \"sequential\", or repair = \"{NO_REPAIR}\""
            )),
            Self::NotRun(_) => EngineError::refused(problem, Remedy::NoRepair).into(),
            Self::Codes(_) => EngineError::refused(problem, Remedy::Requantise).into(),
            Self::NoText => EngineError::refused(problem, Remedy::Calibration).into(),
        }
    }
}

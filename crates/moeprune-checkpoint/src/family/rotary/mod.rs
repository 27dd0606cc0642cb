//! `[attention.rotary]`, and what configs say of rotary positions.
//!
//! There are two dialects. Released files have `rope_theta`, `partial_rotary_factor` and, if angles
//! are scaled, `rope_scaling` with a `type`; transformers 5 writes all of it into `rope_parameters`
//! with a `rope_type`. Both are read, mixed too; what they say twice they must say alike.

mod places;
#[cfg(test)]
mod tests;

use moeprune_core::{
    Llama3Scaling, LongRopeScaling, RotaryScaling, RotarySpec, RotaryStyle, YarnScaling,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::places::Places;
use super::key::Key;
use crate::{
    Error,
    config::{Config, ConfigValue, shown},
    number::real,
};

/// Keys that are read for every scaling, or that change nothing.
const ALWAYS: [&str; 7] = [
    "type",
    "rope_type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "finetuned",
];

/// Kinds of scaling; `su` is an older name of `longrope`.
const KINDS: [&str; 7] = ["default", "linear", "dynamic", "llama3", "yarn", "longrope", "su"];

/// Further keys of YaRN.
const YARN: [&str; 6] =
    ["beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim"];

/// How queries and keys turn.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotaryForm {
    /// The base where the config has none; absent: it must have one.
    theta: Option<f64>,
    /// The share of a head that turns where the config says none; absent: all of it, always.
    partial: Option<f64>,
    /// How many of a head's dimensions turn, if the config says so.
    dims: Option<Key<usize>>,
    /// Whether neighbouring dimensions turn together, rather than those half a head apart; absent:
    /// they do not.
    pair: Option<Key<bool>>,
    /// The one object of the config in which all of this stands, where layers differ.
    within: Option<String>,
    /// Whether angles may be proportional to the share of a head that turns.
    #[serde(default)]
    proportional: bool,
    /// Keys beside the scaling's that change nothing in text.
    #[serde(default)]
    ignored: Vec<String>,
}

/// A number that may be zero.
#[derive(Debug, Clone, Copy)]
struct Amount(f64);

impl ConfigValue for Amount {
    const EXPECTED: &'static str = "a number from 0 up";

    fn from_json(text: &str) -> Option<Self> {
        let value = real(text)?;
        (value.is_finite() && value >= 0.0).then_some(Self(value))
    }
}

/// Positive numbers.
#[derive(Debug, Clone)]
struct Numbers(Vec<f64>);

impl ConfigValue for Numbers {
    const EXPECTED: &'static str = "a list of positive numbers";

    fn from_json(text: &str) -> Option<Self> {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let values: Vec<f64> =
            items.into_iter().map(|item| real(item.get())).collect::<Option<_>>()?;
        values.iter().all(|value| value.is_finite() && *value > 0.0).then_some(Self(values))
    }
}

impl RotaryForm {
    /// For heads of which `width` dimensions may turn.
    pub(crate) fn read(
        &self,
        config: &Config,
        width: usize,
        max_positions: usize,
    ) -> Result<RotarySpec, Error> {
        let places = Places::of(self.within.as_deref());
        let theta = Key { default: self.theta, ..places.everywhere("rope_theta") };
        let pair = self.pair.as_ref().map_or(Ok(false), |key| key.needed(config))?;
        let ignored = &self.ignored;
        let scaling = Scaling { config, ignored, places: &places, max_positions };
        let kind = scaling.kind()?;
        if self.proportional && kind.as_deref() == Some("proportional") {
            return self.read_proportional(scaling, theta.needed(config)?, width);
        }
        scaling.check_kind(kind.as_deref())?;
        let dims = self.read_dims(config, width)?;
        let scaling = scaling.read(dims)?;
        Ok(RotarySpec {
            theta: theta.needed(config)?,
            dims,
            style: if pair { RotaryStyle::Pair } else { RotaryStyle::Half },
            scaling,
        })
    }

    /// The share that turns is one of the pairs that the whole head has.
    fn read_proportional(
        &self,
        scaling: Scaling<'_>,
        theta: f64,
        width: usize,
    ) -> Result<RotarySpec, Error> {
        let Scaling { config, places, .. } = scaling;
        scaling.refuse_others(Some("proportional"), &[])?;
        let key = places.everywhere::<f64>("partial_rotary_factor");
        let share = key.optional(config)?.or(self.partial).unwrap_or(1.0);
        if share > 1.0 || !width.is_multiple_of(2) {
            return Err(config.refuse(format!(
                "`{}` is {share} of heads of width {width}; expected at most 1, of an even width",
                key.shown()
            )));
        }
        let pairs = (share * width as f64 / 2.0).floor() as usize;
        let factor = places.scaled::<f64>(&["factor"]).optional(config)?.unwrap_or(1.0);
        let scaling = RotaryScaling::Proportional { pairs, factor };
        Ok(RotarySpec { scaling, ..RotarySpec::plain(theta, width) })
    }

    fn read_dims(&self, config: &Config, width: usize) -> Result<usize, Error> {
        let key = Places::of(self.within.as_deref()).everywhere::<f64>("partial_rotary_factor");
        let share = key.optional(config)?;
        if let (None, Some(share)) = (self.partial, share.filter(|share| *share != 1.0)) {
            return Err(config.refuse(format!(
                "`{}` is {share}, but heads of this family turn as a whole",
                key.shown()
            )));
        }
        let by_share = |share: f64| (width as f64 * share) as usize;
        let said = match &self.dims {
            Some(dims) => dims.optional(config)?,
            None => None,
        };
        let dims = match (said, share) {
            (Some(dims), Some(share)) if dims != by_share(share) => {
                let keys = self.dims.as_ref().map(Key::shown).unwrap_or_default();
                return Err(config.refuse(format!(
                    "`{keys}` is {dims}, but `{}` is {share}, which is {} of {width}",
                    key.shown(),
                    by_share(share)
                )));
            }
            (Some(dims), _) => dims,
            (None, share) => by_share(share.or(self.partial).unwrap_or(1.0)),
        };
        if dims == 0 || dims > width || !dims.is_multiple_of(2) {
            let most = width - width % 2;
            return Err(config.refuse(format!(
                "{dims} of {width} dimensions of a head would turn, in pairs; expected an even number \
                 from 2 to {most}"
            )));
        }
        Ok(dims)
    }
}

/// What a config says of the scaling of angles.
#[derive(Clone, Copy)]
struct Scaling<'a> {
    config: &'a Config,
    /// Keys that change nothing.
    ignored: &'a [String],
    places: &'a Places,
    max_positions: usize,
}

impl Scaling<'_> {
    fn kinds(self) -> Key<String> {
        self.places.scaled(&["rope_type", "type"])
    }

    /// The kind of the scaling by its newest name; `None` if none is said, or nothing in its place.
    fn kind(self) -> Result<Option<String>, Error> {
        let kind = self.kinds().optional(self.config)?.filter(|kind| !kind.is_empty());
        let has_sections = self.ignored.iter().any(|key| key == "mrope_section");
        Ok(kind.map(|kind| match kind.as_str() {
            "su" => "longrope".to_owned(),
            "mrope" if has_sections => "default".to_owned(),
            _ => kind,
        }))
    }

    fn read(self, dims: usize) -> Result<RotaryScaling, Error> {
        let Self { config, max_positions, .. } = self;
        let kind = self.kind()?;
        let number = |name: &str| self.places.scaled::<f64>(&[name]);
        let original = || {
            let key = self.places.everywhere::<f64>("original_max_position_embeddings");
            Ok::<_, Error>(key.optional(config)?.unwrap_or(max_positions as f64))
        };
        match kind.as_deref() {
            None | Some("default") => {
                self.refuse_others(kind.as_deref(), &[])?;
                match number("factor").optional(config)? {
                    None | Some(1.0) => Ok(RotaryScaling::None),
                    Some(factor) => Err(config.refuse(format!(
                        "`{}` is {factor}, but {}; which is meant?",
                        number("factor").shown(),
                        of_kind(kind.as_deref())
                    ))),
                }
            }
            Some("linear") => {
                self.refuse_others(kind.as_deref(), &[])?;
                match number("factor").needed(config)? {
                    1.0 => Ok(RotaryScaling::None),
                    factor => Ok(RotaryScaling::Linear { factor }),
                }
            }
            Some("llama3") => self.read_llama3(original()?).map(RotaryScaling::Llama3),
            Some("yarn") => {
                let original = original()?;
                let factor = number("factor").optional(config)?;
                let factor = factor.unwrap_or(max_positions as f64 / original);
                self.read_yarn(factor, original).map(RotaryScaling::Yarn)
            }
            // With `alpha` the other numbers are left over from the form they were copied from.
            Some("dynamic") if number("alpha").found(config)?.is_some() => {
                let left_over = ["alpha", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"];
                self.refuse_others(kind.as_deref(), &left_over)?;
                Ok(RotaryScaling::NtkAlpha { alpha: number("alpha").needed(config)? })
            }
            Some("dynamic") => self.read_dynamic(original()?),
            Some("longrope") => self.read_longrope(dims).map(RotaryScaling::LongRope),
            Some(other) => Err(self.unknown(other)?),
        }
    }

    /// Refuses a kind that is not known, before what else is said with it.
    fn check_kind(self, kind: Option<&str>) -> Result<(), Error> {
        match kind.filter(|kind| !KINDS.contains(kind)) {
            Some(kind) => Err(self.unknown(kind)?),
            None => Ok(()),
        }
    }

    fn unknown(self, kind: &str) -> Result<Error, Error> {
        Ok(self.config.refuse(format!(
            "`{}` is `{}`; of scaled rotary embeddings linear, dynamic, llama3, yarn and longrope are \
             implemented",
            self.kinds().found(self.config)?.unwrap_or_default(),
            shown(kind)
        )))
    }

    /// Angles that change where a sequence is longer than the model was made for, which no sequence here is.
    fn read_dynamic(self, original: f64) -> Result<RotaryScaling, Error> {
        let Self { config, max_positions, .. } = self;
        self.refuse_others(Some("dynamic"), &[])?;
        self.places.scaled::<f64>(&["factor"]).needed(config)?;
        if original != max_positions as f64 {
            let key = self.places.everywhere::<f64>("original_max_position_embeddings");
            return Err(config.refuse(format!(
                "`{}` is {original}, not the {max_positions} positions that the model has; from where on \
                 angles change is not clear",
                key.found(config)?.unwrap_or_default()
            )));
        }
        Ok(RotaryScaling::None)
    }

    fn read_llama3(self, original: f64) -> Result<Llama3Scaling, Error> {
        let config = self.config;
        self.refuse_others(Some("llama3"), &["low_freq_factor", "high_freq_factor"])?;
        let number = |name: &str| self.places.scaled::<f64>(&[name]).needed(config);
        let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
        if low > high {
            let reason = format!("`low_freq_factor` is {low}, above `high_freq_factor`, {high}");
            return Err(config.refuse(reason));
        }
        Ok(Llama3Scaling { factor: number("factor")?, low, high, original })
    }

    fn read_yarn(self, factor: f64, original: f64) -> Result<YarnScaling, Error> {
        let config = self.config;
        self.refuse_others(Some("yarn"), &YARN)?;
        let number = |name: &str| self.places.scaled::<f64>(&[name]).optional(config);
        let amount = |name: &str| {
            Ok::<_, Error>(
                self.places.scaled::<Amount>(&[name]).optional(config)?.map(|Amount(value)| value),
            )
        };
        Ok(YarnScaling {
            factor,
            original,
            beta_fast: number("beta_fast")?.unwrap_or(32.0),
            beta_slow: number("beta_slow")?.unwrap_or(1.0),
            truncate: self.places.scaled::<bool>(&["truncate"]).optional(config)?.unwrap_or(true),
            attention_factor: number("attention_factor")?,
            mscale: amount("mscale")?,
            mscale_all_dim: amount("mscale_all_dim")?,
        })
    }

    /// The factors and the multiplier of short sequences.
    fn read_longrope(self, dims: usize) -> Result<LongRopeScaling, Error> {
        let config = self.config;
        let known =
            ["short_factor", "long_factor", "short_mscale", "long_mscale", "attention_factor"];
        self.refuse_others(Some("longrope"), &known)?;
        let Numbers(factors) = self.places.scaled::<Numbers>(&["short_factor"]).needed(config)?;
        if factors.len() != dims / 2 {
            return Err(config.refuse(format!(
                "`short_factor` has {} numbers, expected one for each of the {} pairs of dimensions \
                 that turn",
                factors.len(),
                dims / 2
            )));
        }
        let mut original = self.places.everywhere::<usize>("original_max_position_embeddings");
        original.default = Some(self.max_positions);
        let original = original.needed(config)?;
        let said = self.places.scaled::<f64>(&["short_mscale"]).optional(config)?;
        let magnitude = said.map_or_else(|| self.magnitude_of(original), Ok)?;
        Ok(LongRopeScaling { factors, magnitude, original })
    }

    /// What cosines and sines are multiplied by where sequences may become longer than `original`.
    fn magnitude_of(self, original: usize) -> Result<f64, Error> {
        let number = |name: &str| self.places.scaled::<f64>(&[name]).optional(self.config);
        if let Some(said) = number("attention_factor")? {
            return Ok(said);
        }
        let longer = self.max_positions as f64 / original as f64;
        let factor = number("factor")?.unwrap_or(longer);
        let grown = (1.0 + factor.ln() / (original as f64).ln()).sqrt();
        Ok(if factor > 1.0 { grown } else { 1.0 })
    }

    /// Refuses keys that a scaling of this kind does not have: nothing here knows what they change.
    fn refuse_others(self, kind: Option<&str>, known: &[&str]) -> Result<(), Error> {
        let Self { config, ignored, .. } = self;
        for holder in &self.places.holders {
            for key in config.members_of(holder)? {
                let is_known = ALWAYS.contains(&&*key) || known.contains(&&*key);
                if !is_known && !ignored.contains(&key) {
                    return Err(config.refuse(format!(
                        "`{holder}.{key}` is not known where {}; it may change the angles, which \
                         would go unnoticed",
                        of_kind(kind)
                    )));
                }
            }
        }
        Ok(())
    }
}

fn of_kind(kind: Option<&str>) -> String {
    match kind {
        Some(kind) => format!("`rope_type` is `{kind}`"),
        None => "there is no `rope_type`".to_owned(),
    }
}

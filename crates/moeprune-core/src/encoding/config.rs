//! What a checkpoint's `quantization_config` says that its tensors cannot.

use serde_json::Value;

use crate::Error;

/// What `quantization_config` says about how weights are stored. Which modules are quantised, and in
/// which format, is read off the tensors: lists of skipped modules are often wrong. Everything is
/// optional, since only some formats need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuantConfig {
    /// The format's own name, `quant_method`: for messages.
    pub method: Option<String>,
    /// Rows and columns of a block that shares a scale: `weight_block_size`, or `block_structure` of
    /// compressed-tensors.
    pub block: Option<[usize; 2]>,
    /// Bits of an integer code: `bits`, `w_bit`, or `num_bits` of compressed-tensors.
    pub bits: Option<u64>,
    /// Inputs that share a scale: `group_size`, `q_group_size`, or that of compressed-tensors.
    pub group_size: Option<usize>,
    /// Whether integer codes have one zero point for all: `sym`, or `symmetric`.
    pub symmetric: Option<bool>,
    /// How GPTQ's zero points are labelled: `checkpoint_format`.
    pub gptq: Option<GptqLabel>,
    /// The packing that AWQ names, `version`: `gemm`, `gemv`, ….
    pub packing: Option<String>,
}

/// How a checkpoint in GPTQ labels its zero points. Labels are wrong at times; values decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the labels there are")]
pub enum GptqLabel {
    /// `gptq`: stored less one.
    V1,
    /// `gptq_v2`: stored as they are.
    V2,
}

impl QuantConfig {
    /// Reads a `quantization_config`. What is not known is left alone.
    ///
    /// # Errors
    /// [`Error::QuantConfig`] if a key that is known has a value that it cannot have.
    pub fn from_json(config: &Value) -> Result<Self, Error> {
        let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_owned);
        let groups: Vec<&Value> = match config.get("config_groups").and_then(Value::as_object) {
            Some(groups) => groups.values().filter_map(|group| group.get("weights")).collect(),
            None => Vec::new(),
        };
        let integers: Vec<&Value> =
            groups.iter().copied().filter(|group| is_integer(group)).collect();
        let mut block = match config.get("weight_block_size") {
            None | Some(Value::Null) => None,
            Some(value) => Some(block_size("weight_block_size", value)?),
        };
        if block.is_none() {
            let structures = groups.iter().filter_map(|group| group.get("block_structure"));
            let structures = structures.filter(|value| !value.is_null());
            let sizes: Vec<[usize; 2]> = structures
                .map(|value| block_size("block_structure", value))
                .collect::<Result<_, _>>()?;
            block = same(sizes.into_iter());
        }
        let own = |keys: [&str; 2]| keys.into_iter().find_map(|key| config.get(key));
        Ok(Self {
            method: text("quant_method").or_else(|| text("quant_algo")),
            block,
            bits: own(["bits", "w_bit"]).and_then(Value::as_u64).or_else(|| {
                same(integers.iter().filter_map(|group| group.get("num_bits")?.as_u64()))
            }),
            group_size: own(["group_size", "q_group_size"])
                .and_then(Value::as_u64)
                .or_else(|| {
                    same(integers.iter().filter_map(|group| group.get("group_size")?.as_u64()))
                })
                .and_then(|size| usize::try_from(size).ok())
                .filter(|size| *size > 0),
            symmetric: own(["sym", "symmetric"]).and_then(Value::as_bool).or_else(|| {
                same(integers.iter().filter_map(|group| group.get("symmetric")?.as_bool()))
            }),
            gptq: match text("checkpoint_format").as_deref() {
                Some("gptq") => Some(GptqLabel::V1),
                Some("gptq_v2") => Some(GptqLabel::V2),
                _ => None,
            },
            packing: text("version").map(|version| version.to_lowercase()),
        })
    }
}

impl QuantConfig {
    /// What is said here, and where nothing is, what `other` says; and the keys on which the two differ.
    #[must_use]
    pub fn or(self, other: Self) -> (Self, Vec<&'static str>) {
        let mut differ = Vec::new();
        let both = Self {
            method: either("quant_method", self.method, other.method, &mut differ),
            block: either("weight_block_size", self.block, other.block, &mut differ),
            bits: either("bits", self.bits, other.bits, &mut differ),
            group_size: either("group_size", self.group_size, other.group_size, &mut differ),
            symmetric: either("sym", self.symmetric, other.symmetric, &mut differ),
            gptq: either("checkpoint_format", self.gptq, other.gptq, &mut differ),
            packing: either("version", self.packing, other.packing, &mut differ),
        };
        (both, differ)
    }
}

fn either<T: PartialEq>(
    key: &'static str,
    own: Option<T>,
    other: Option<T>,
    differ: &mut Vec<&'static str>,
) -> Option<T> {
    if own.is_some() && other.is_some() && own != other {
        differ.push(key);
    }
    own.or(other)
}

fn is_integer(group: &Value) -> bool {
    group.get("type").and_then(Value::as_str).is_none_or(|name| name == "int")
}

/// The value, if all are the same.
fn same<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// `[128, 128]`, or as older compressed-tensors write it, `"128x128"`.
fn block_size(key: &'static str, value: &Value) -> Result<[usize; 2], Error> {
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let numbers: Vec<Option<usize>> = match value {
        Value::Array(numbers) => numbers.iter().map(number).collect(),
        Value::String(text) => text.split('x').map(|part| part.trim().parse().ok()).collect(),
        _ => Vec::new(),
    };
    match numbers[..] {
        [Some(rows), Some(cols)] if rows > 0 && cols > 0 => Ok([rows, cols]),
        _ => Err(Error::QuantConfig {
            key,
            expected: "the rows and columns of a block, such as [128, 128]",
            got: value.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{GptqLabel, QuantConfig};

    fn read(config: Value) -> QuantConfig {
        QuantConfig::from_json(&config).expect("fits")
    }

    #[test]
    fn blocks() {
        let check = |config, block| assert_eq!(read(config).block, block);
        check(json!({"weight_block_size": [128, 64]}), Some([128, 64]));
        check(json!({"weight_block_size": null}), None);
        check(
            json!({"config_groups": {"a": {"weights": {"block_structure": "32x48"}}}}),
            Some([32, 48]),
        );
        let two = |a: [u8; 2], b: [u8; 2]| {
            let group = |size| json!({"weights": {"block_structure": size, "type": "float"}});
            json!({"config_groups": {"a": group(a), "b": group(b)}})
        };
        check(two([8, 8], [8, 8]), Some([8, 8]));
        check(two([8, 8], [8, 16]), None);
    }

    #[test]
    fn two_configs() {
        let check = |own: Value, other: Value, label, differ: &[&str]| {
            let (both, keys) = read(own).or(read(other));
            assert_eq!((both.gptq, keys.as_slice()), (label, differ));
        };
        let (v1, v2) =
            (json!({"checkpoint_format": "gptq"}), json!({"checkpoint_format": "gptq_v2"}));
        check(json!({}), v2.clone(), Some(GptqLabel::V2), &[]);
        check(v1.clone(), json!({"bits": 4}), Some(GptqLabel::V1), &[]);
        check(v1, v2, Some(GptqLabel::V1), &["checkpoint_format"]);
        check(json!({"bits": 4}), json!({"bits": 8}), None, &["bits"]);
    }

    #[test]
    fn a_block_that_is_none() {
        for value in [json!([128]), json!([0, 128]), json!([1, -1]), json!("128"), json!(128)] {
            let config = json!({"weight_block_size": value});
            let error = QuantConfig::from_json(&config).expect_err("is no block").to_string();
            assert!(error.contains("`weight_block_size`"), "{error}");
        }
    }

    #[test]
    fn integers() {
        let gptq = read(
            json!({"quant_method": "gptq", "bits": 4, "sym": false, "checkpoint_format": "gptq_v2"}),
        );
        assert_eq!(
            (gptq.bits, gptq.symmetric, gptq.gptq),
            (Some(4), Some(false), Some(GptqLabel::V2))
        );
        assert_eq!(gptq.method.as_deref(), Some("gptq"));
        assert_eq!(read(json!({"w_bit": 4, "version": "GEMM"})).packing.as_deref(), Some("gemm"));
        let weights = json!({"num_bits": 4, "type": "int", "symmetric": true});
        let float = json!({"num_bits": 8, "type": "float", "symmetric": true});
        let mixed = json!({"config_groups": {"a": {"weights": weights}, "b": {"weights": float}}});
        assert_eq!((read(mixed.clone()).bits, read(mixed).symmetric), (Some(4), Some(true)));
        assert_eq!(read(json!({})), QuantConfig::default());
    }
}

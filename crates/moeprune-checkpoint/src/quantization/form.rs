//! In which form the tensors of a module hold its weight.

use std::fmt;

use moeprune_core::Dtype;
use serde::{Serialize, Serializer};

/// One of the tensors that hold a module's weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// What its name has after that of the module.
    pub(crate) suffix: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
}

/// In which form a weight is stored, as far as its tensors say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoredForm {
    /// One number for each weight.
    Plain(Dtype),
    /// E4M3 with a scale for each block of the matrix.
    Fp8Block,
    /// E4M3 with a scale for each output.
    Fp8Channel,
    /// E4M3 with one scale.
    Fp8Tensor,
    /// E4M3 with a power of two for each 32 inputs.
    Mxfp8,
    /// Whole numbers of 8 bits.
    Int8,
    /// Whole numbers of so many bits, as compressed-tensors packs them.
    PackedInt {
        /// Of each.
        bits: usize,
    },
    /// E2M1 with a power of two for each 32 inputs.
    Mxfp4,
    /// E2M1 with a scale for each 16 inputs and one for all.
    Nvfp4,
    /// Whole numbers of so many bits, packed along the inputs.
    Gptq {
        /// Of each.
        bits: usize,
    },
    /// Whole numbers of so many bits, packed along the outputs.
    Awq {
        /// Of each.
        bits: usize,
    },
    /// A form that is not known: the endings of the tensors' names.
    Unknown(String),
}

impl fmt::Display for StoredForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Fp8Block => f.write_str("FP8 in blocks"),
            Self::Fp8Channel => f.write_str("FP8 per channel"),
            Self::Fp8Tensor => f.write_str("FP8 per tensor"),
            Self::Mxfp8 => f.write_str("MXFP8"),
            Self::Int8 => f.write_str("INT8"),
            Self::PackedInt { bits } => write!(f, "INT{bits} packed"),
            Self::Mxfp4 => f.write_str("MXFP4"),
            Self::Nvfp4 => f.write_str("NVFP4"),
            Self::Gptq { bits } => write!(f, "GPTQ INT{bits}"),
            Self::Awq { bits } => write!(f, "AWQ INT{bits}"),
            Self::Unknown(suffixes) => write!(f, "an unknown form ({suffixes})"),
        }
    }
}

impl Serialize for StoredForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong with the tensors of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The ending of the tensor's name.
    pub(crate) suffix: String,
    pub(crate) reason: String,
}

/// Endings of tensors that hold a weight's codes, the most usual first.
const MAIN: [&str; 3] = ["weight", "weight_packed", "qweight"];

/// Endings of tensors that are of no use without codes.
const COMPANIONS: [&str; 11] = [
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "weight_global_scale",
    "weight_zero_point",
    "weight_shape",
    "scales",
    "qzeros",
    "g_idx",
    "input_scale",
    "input_global_scale",
];

/// Endings of tensors that a weight can be read without: they are about activations.
const OF_ACTIVATIONS: [&str; 9] = [
    "input_scale",
    "input_global_scale",
    "input_zero_point",
    "output_scale",
    "activation_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "k_zero_point",
];

/// Which of several tensors holds the codes: the first by name, else the largest.
///
/// # Errors
/// If there are companions only.
pub(crate) fn main_of(pieces: &[Piece<'_>]) -> Result<usize, Misfit> {
    let named = |suffix: &&str| pieces.iter().position(|piece| piece.suffix == *suffix);
    if let Some(main) = MAIN.iter().find_map(named) {
        return Ok(main);
    }
    if pieces.iter().all(|piece| COMPANIONS.contains(&piece.suffix)) {
        let beside: Vec<&str> = pieces.iter().map(|piece| piece.suffix).collect();
        let reason = format!("is missing; there is only `{}` of it", beside.join("`, `"));
        return Err(Misfit { suffix: MAIN[0].to_owned(), reason });
    }
    let bytes = |piece: &Piece<'_>| piece.dtype.bytes_of_shape(piece.shape).unwrap_or(usize::MAX);
    Ok((0..pieces.len()).max_by_key(|&at| bytes(&pieces[at])).unwrap_or_default())
}

/// The shape of the weight that tensors hold, as far as they say; that of the codes if they do not.
pub(crate) fn shape_of(main: Piece<'_>, pieces: &[Piece<'_>]) -> Vec<usize> {
    let scales = pieces.iter().find(|piece| piece.suffix == "scales").map(|piece| piece.shape);
    match (main.suffix, main.dtype, main.shape) {
        ("weight_packed", Dtype::I32, &[rows, words]) => vec![rows, words.saturating_mul(8)],
        ("weight_packed" | "weight", Dtype::U8, &[rows, bytes]) => {
            vec![rows, bytes.saturating_mul(2)]
        }
        ("qweight", _, &[words, outputs]) => match scales {
            Some(&[_, all]) if all != outputs => vec![all, words],
            _ => vec![outputs, words.saturating_mul(8)],
        },
        (_, _, shape) => shape.to_vec(),
    }
}

/// The form in which tensors hold a weight of shape `expected`.
///
/// # Errors
/// Which tensor is missing or does not fit.
pub(crate) fn form_of(
    main: Piece<'_>,
    pieces: &[Piece<'_>],
    expected: &[usize],
) -> Result<StoredForm, Misfit> {
    let beside = Beside { main, pieces, expected };
    let &[outputs, inputs] = expected else { return beside.of_other_rank() };
    match (main.suffix, main.dtype) {
        ("weight", Dtype::F8_E4M3) => beside.fp8(outputs, inputs),
        ("weight", dtype) if dtype.is_weight() => beside.plain(),
        ("weight", Dtype::I8) if main.shape == expected => {
            let scale = beside.needed("weight_scale")?;
            match scale.shape {
                [] | [1] => Ok(StoredForm::Int8),
                shape if shape == [outputs, 1] || shape == [outputs] => Ok(StoredForm::Int8),
                _ => Ok(beside.unknown()),
            }
        }
        ("weight_packed", Dtype::I32) => beside.packed_int(outputs, inputs),
        ("weight" | "weight_packed", Dtype::U8) => beside.fp4(outputs, inputs),
        ("qweight", Dtype::I32) => beside.quantised_words(outputs, inputs),
        _ => Ok(beside.unknown()),
    }
}

/// The tensors beside the codes.
struct Beside<'a> {
    main: Piece<'a>,
    pieces: &'a [Piece<'a>],
    expected: &'a [usize],
}

impl<'a> Beside<'a> {
    fn get(&self, suffix: &str) -> Option<Piece<'a>> {
        self.pieces.iter().find(|piece| piece.suffix == suffix).copied()
    }

    fn needed(&self, suffix: &str) -> Result<Piece<'a>, Misfit> {
        self.get(suffix).ok_or_else(|| {
            let reason =
                format!("is missing beside `{}`, which cannot be read without", self.main.suffix);
            Misfit { suffix: suffix.to_owned(), reason }
        })
    }

    fn unknown(&self) -> StoredForm {
        let suffixes: Vec<String> =
            self.pieces.iter().map(|piece| format!("{} {}", piece.suffix, piece.dtype)).collect();
        StoredForm::Unknown(suffixes.join(", "))
    }

    /// A weight in a form of which only matrices are known.
    fn of_other_rank(&self) -> Result<StoredForm, Misfit> {
        if self.main.dtype.is_weight() { self.plain() } else { Ok(self.unknown()) }
    }

    /// Numbers that are weights, if what is beside them is about activations.
    fn plain(&self) -> Result<StoredForm, Misfit> {
        let mut others = self.pieces.iter().filter(|piece| piece.suffix != self.main.suffix);
        if !others.all(|piece| OF_ACTIVATIONS.contains(&piece.suffix)) {
            return Ok(self.unknown());
        }
        self.check(self.main, self.expected)?;
        Ok(StoredForm::Plain(self.main.dtype))
    }

    /// Checks a tensor's shape.
    fn check(&self, piece: Piece<'_>, expected: &[usize]) -> Result<(), Misfit> {
        if piece.shape == expected {
            return Ok(());
        }
        Err(misshapen(piece, &format!("config.json asks for {expected:?}")))
    }

    fn check_one(&self, piece: Piece<'_>) -> Result<(), Misfit> {
        match piece.shape {
            [] | [1] => Ok(()),
            _ => Err(misshapen(piece, "a single number is expected")),
        }
    }

    fn fp8(&self, outputs: usize, inputs: usize) -> Result<StoredForm, Misfit> {
        self.check(self.main, self.expected)?;
        let named = ["weight_scale_inv", "weight_scale", "scale"];
        let mut scales = named.iter().filter_map(|suffix| self.get(suffix));
        let Some(scale) = scales.next() else {
            let of_activations = |piece: &&Piece<'_>| OF_ACTIVATIONS.contains(&piece.suffix);
            if self.pieces.iter().filter(|piece| !of_activations(piece)).count() > 1 {
                return Ok(self.unknown());
            }
            let reason = "is missing beside `weight`, which is FP8 and cannot be read without";
            let suffix = "weight_scale_inv".to_owned();
            return Err(Misfit { suffix, reason: reason.to_owned() });
        };
        if let Some(second) = scales.next() {
            let reason = format!("is a second scale beside `{}`; there can be one", scale.suffix);
            return Err(Misfit { suffix: second.suffix.to_owned(), reason });
        }
        match *scale.shape {
            [] | [1] => Ok(StoredForm::Fp8Tensor),
            [rows, groups] if scale.dtype == Dtype::U8 => {
                if [rows, groups] == [outputs, inputs.div_ceil(32)] {
                    return Ok(StoredForm::Mxfp8);
                }
                Ok(self.unknown())
            }
            [rows] | [rows, 1] if rows == outputs => Ok(StoredForm::Fp8Channel),
            [rows, cols] if (1..=outputs).contains(&rows) && (1..=inputs).contains(&cols) => {
                Ok(StoredForm::Fp8Block)
            }
            _ => {
                let fits = format!("no blocks of a weight {outputs} x {inputs} are so many");
                Err(misshapen(scale, &fits))
            }
        }
    }

    fn packed_int(&self, outputs: usize, inputs: usize) -> Result<StoredForm, Misfit> {
        let bits = match *self.main.shape {
            [rows, words] if rows == outputs && words == inputs.div_ceil(8) => 4,
            [rows, words] if rows == outputs && words == inputs.div_ceil(4) => 8,
            [rows, _] if rows == outputs => return Ok(self.unknown()),
            _ => return Err(misshapen(self.main, &format!("{outputs} rows are expected"))),
        };
        let scale = self.needed("weight_scale")?;
        let groups = match *scale.shape {
            [rows, groups] if rows == outputs && (1..=inputs).contains(&groups) => groups,
            _ => return Err(misshapen(scale, &format!("[{outputs}, groups] is expected"))),
        };
        if let Some(shape) = self.get("weight_shape") {
            self.check(shape, &[2])?;
        }
        if let Some(zeros) = self.get("weight_zero_point") {
            self.check(zeros, &[outputs.div_ceil(32 / bits), groups])?;
        }
        Ok(StoredForm::PackedInt { bits })
    }

    /// Two numbers of four bits in each byte.
    fn fp4(&self, outputs: usize, inputs: usize) -> Result<StoredForm, Misfit> {
        let Some(scale) = self.get("weight_scale") else {
            return match self.main.suffix {
                "weight_packed" => self.needed("weight_scale").map(|_| self.unknown()),
                _ => Ok(self.unknown()),
            };
        };
        if ![Dtype::U8, Dtype::F8_E4M3, Dtype::F8_E8M0].contains(&scale.dtype) {
            return Ok(self.unknown());
        }
        self.check(self.main, &[outputs, inputs.div_ceil(2)])?;
        if scale.dtype != Dtype::F8_E4M3 {
            self.check(scale, &[outputs, inputs.div_ceil(32)])?;
            return Ok(StoredForm::Mxfp4);
        }
        self.check(scale, &[outputs, inputs.div_ceil(16)])?;
        let packed = self.main.suffix == "weight_packed";
        self.check_one(self.needed(if packed {
            "weight_global_scale"
        } else {
            "weight_scale_2"
        })?)?;
        Ok(StoredForm::Nvfp4)
    }

    /// GPTQ or AWQ, or another form that uses the same names.
    fn quantised_words(&self, outputs: usize, inputs: usize) -> Result<StoredForm, Misfit> {
        let widths = [2, 3, 4, 8];
        let packs = |words: usize, of: usize, bits: &usize| words * 32 == of * bits;
        let &[first, second] = self.main.shape else { return Ok(self.unknown()) };
        let by_inputs = widths.into_iter().find(|bits| packs(first, inputs, bits));
        let by_outputs = widths.into_iter().find(|bits| packs(second, outputs, bits));
        let (form, bits) = match (by_inputs, by_outputs) {
            (Some(bits), _) if second == outputs => (StoredForm::Gptq { bits }, bits),
            (_, Some(bits)) if first == inputs => (StoredForm::Awq { bits }, bits),
            _ => return Ok(self.unknown()),
        };
        let scales = self.needed("scales")?;
        let groups = match *scales.shape {
            [groups, all] if all == outputs && (1..=inputs).contains(&groups) => groups,
            _ => return Err(misshapen(scales, &format!("[groups, {outputs}] is expected"))),
        };
        self.check(self.needed("qzeros")?, &[groups, outputs * bits / 32])?;
        if let Some(index) = self.get("g_idx") {
            self.check(index, &[inputs])?;
        }
        Ok(form)
    }
}

fn misshapen(piece: Piece<'_>, expected: &str) -> Misfit {
    let reason = format!("is {} {:?}, but {expected}", piece.dtype, piece.shape);
    Misfit { suffix: piece.suffix.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tensor = (&'static str, Dtype, &'static [usize]);

    fn pieces(tensors: &[Tensor]) -> Vec<Piece<'static>> {
        let piece = |&(suffix, dtype, shape): &Tensor| Piece { suffix, dtype, shape };
        tensors.iter().map(piece).collect()
    }

    fn form(tensors: &[Tensor], expected: &[usize]) -> Result<StoredForm, Misfit> {
        let pieces = pieces(tensors);
        let main = main_of(&pieces)?;
        form_of(pieces[main], &pieces, expected)
    }

    use Dtype::{BF16, F8_E4M3, F8_E8M0, F16, F32, I8, I32, I64, U8};

    #[test]
    fn forms_and_shapes() {
        let check = |tensors: &[Tensor], shape: [usize; 2], expected: &str| {
            assert_eq!(form(tensors, &shape).map(|form| form.to_string()).as_deref(), Ok(expected));
            let pieces = pieces(tensors);
            let main = pieces[main_of(&pieces).expect("has codes")];
            if !expected.contains("unknown") && !expected.contains("INT8") {
                assert_eq!(shape_of(main, &pieces), shape, "{expected}");
            }
        };
        let weight: Tensor = ("weight", F8_E4M3, &[160, 144]);
        check(&[weight, ("weight_scale_inv", F32, &[2, 2])], [160, 144], "FP8 in blocks");
        check(&[weight, ("weight_scale_inv", F8_E8M0, &[5, 5])], [160, 144], "FP8 in blocks");
        check(&[weight, ("scale", F8_E8M0, &[2, 2])], [160, 144], "FP8 in blocks");
        check(&[weight, ("weight_scale", BF16, &[160, 1])], [160, 144], "FP8 per channel");
        let static_scale: Tensor = ("input_scale", F32, &[]);
        check(&[weight, ("weight_scale", F32, &[]), static_scale], [160, 144], "FP8 per tensor");
        check(&[weight, ("weight_scale", U8, &[160, 5])], [160, 144], "MXFP8");
        let packed: Tensor = ("weight_packed", I32, &[36, 8]);
        let scale: Tensor = ("weight_scale", BF16, &[36, 2]);
        let zeros: Tensor = ("weight_zero_point", I32, &[5, 2]);
        check(&[packed, scale, ("weight_shape", I64, &[2])], [36, 64], "INT4 packed");
        check(&[packed, scale, zeros], [36, 64], "INT4 packed");
        check(&[packed, scale], [36, 32], "INT8 packed");
        let three = "an unknown form (weight_packed I32, weight_scale BF16)";
        check(&[packed, scale], [36, 80], three);
        let bytes: Tensor = ("weight_packed", U8, &[32, 32]);
        check(&[bytes, ("weight_scale", U8, &[32, 2])], [32, 64], "MXFP4");
        let global: Tensor = ("weight_global_scale", F32, &[1]);
        check(&[bytes, ("weight_scale", F8_E4M3, &[32, 4]), global], [32, 64], "NVFP4");
        let two: Tensor = ("weight_scale_2", F32, &[]);
        let weight: Tensor = ("weight", U8, &[32, 32]);
        check(&[weight, ("weight_scale", F8_E4M3, &[32, 4]), two], [32, 64], "NVFP4");
        let words: Tensor = ("qweight", I32, &[8, 32]);
        let (scales, zeros): (Tensor, Tensor) =
            (("scales", F16, &[2, 32]), ("qzeros", I32, &[2, 4]));
        check(&[words, scales, zeros, ("g_idx", I32, &[64])], [32, 64], "GPTQ INT4");
        let words: Tensor = ("qweight", I32, &[64, 4]);
        check(&[words, scales, zeros], [32, 64], "AWQ INT4");
        let marlin: Tensor = ("qweight", I32, &[4, 64]);
        let other: Tensor = ("some_scale", F32, &[1]);
        let unknown = "an unknown form (some_scale F32, weight F8_E4M3)";
        check(&[other, ("weight", F8_E4M3, &[32, 64])], [32, 64], unknown);
        check(&[marlin, scales], [32, 64], "an unknown form (qweight I32, scales F16)");
        let plain: Tensor = ("weight", BF16, &[32, 64]);
        check(&[plain, ("k_scale", F32, &[])], [32, 64], "BF16");
        check(&[plain, scale], [32, 64], "an unknown form (weight BF16, weight_scale BF16)");
        check(&[("weight", I8, &[32, 64]), ("weight_scale", BF16, &[32, 1])], [32, 64], "INT8");
        let exl3 = "an unknown form (suh F16, trellis I32)";
        check(&[("suh", F16, &[32]), ("trellis", I32, &[2, 4, 16])], [32, 64], exl3);
    }

    #[test]
    fn what_is_missing_or_does_not_fit() {
        let check = |tensors: &[Tensor], suffix: &str, reason: &str| {
            let misfit = form(tensors, &[32, 64]).expect_err("does not fit");
            assert_eq!(misfit.suffix, suffix);
            assert!(misfit.reason.contains(reason), "{}", misfit.reason);
        };
        let weight: Tensor = ("weight", F8_E4M3, &[32, 64]);
        let blocks: Tensor = ("weight_scale_inv", F32, &[1, 1]);
        check(&[weight], "weight_scale_inv", "is missing beside `weight`");
        check(&[blocks], "weight", "is missing; there is only `weight_scale_inv`");
        check(&[weight, blocks, ("weight_scale", F32, &[])], "weight_scale", "a second scale");
        check(&[weight, ("weight_scale", F32, &[33, 1])], "weight_scale", "F32 [33, 1]");
        check(&[weight, ("weight_scale", F32, &[1, 1, 1])], "weight_scale", "no blocks");
        check(&[("weight", F8_E4M3, &[32, 63]), blocks], "weight", "config.json asks for [32, 64]");
        let packed: Tensor = ("weight_packed", I32, &[32, 8]);
        check(&[packed], "weight_scale", "is missing");
        check(&[packed, ("weight_scale", BF16, &[31, 2])], "weight_scale", "[32, groups]");
        let scale: Tensor = ("weight_scale", BF16, &[32, 2]);
        let zeros: Tensor = ("weight_zero_point", I32, &[32, 2]);
        check(&[packed, scale, zeros], "weight_zero_point", "asks for [4, 2]");
        let bytes: Tensor = ("weight_packed", U8, &[32, 32]);
        check(&[bytes], "weight_scale", "is missing");
        let nv: Tensor = ("weight_scale", F8_E4M3, &[32, 4]);
        check(&[bytes, nv], "weight_global_scale", "is missing");
        check(&[("weight", U8, &[32, 32]), nv], "weight_scale_2", "is missing");
        let words: Tensor = ("qweight", I32, &[8, 32]);
        check(&[words], "scales", "is missing");
        check(&[words, ("scales", F16, &[2, 32])], "qzeros", "is missing");
        let three: Tensor = ("qzeros", I32, &[3, 4]);
        check(&[words, ("scales", F16, &[2, 32]), three], "qzeros", "asks for [2, 4]");
    }
}

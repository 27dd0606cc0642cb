/*!
GPTQ with four bits per weight, which stores the transpose.

| tensor | type | shape |
|---|---|---|
| `.qweight` | I32 | `[in / 8, out]`, input c in word c / 8, bits 4 (c mod 8) |
| `.qzeros` | I32 | `[groups, out / 8]`, output r in word r / 8, bits 4 (r mod 8) |
| `.scales` | F16, BF16 or F32 | `[groups, out]` |
| `.g_idx` | I32 | `[in]`, the group of each input; inputs may be ordered by their activations (`desc_act`). Without it groups follow each other |

A weight is `scale · (q − z)` with the scale and zero point of its output and group. Version 1 stores
`z − 1`, version 2 `z`. Labels are wrong at times, so values decide where they can: the zero point of
symmetric weights is 8, and all of them stored as 7 is version 1, all as 8 version 2.

The code that is zero is `z`. In version 1 a stored 15 means 16, which no code is: such weights cannot
be zeroed, and stay where others are.
*/

use std::ops::Range;

use multiversion::multiversion;

use super::{
    Companion, Encoding, GptqLabel, Rows, RowsMut, SharedEncoding,
    affine::{self, Factors},
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    module::ModuleTensors,
    nibbles,
    scales::{Scales, ZeroScale},
    tiles,
};
use crate::{Dtype, Error, TensorBytes};

const SCALES: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];
const ZEROS: Companion = Companion { suffix: ".qzeros", dtypes: &[Dtype::I32] };
const SCALE: Companion = Companion { suffix: ".scales", dtypes: SCALES };
const GROUP_INDEX: Companion = Companion { suffix: ".g_idx", dtypes: &[Dtype::I32] };

/// GPTQ with four bits per weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gptq {
    /// How zero points are stored; by values, if that is not known.
    version: Option<GptqLabel>,
    /// What the config says, for values that do not decide.
    label: GptqLabel,
    symmetric: Option<bool>,
    /// Whether there is a `.g_idx`.
    group_index: bool,
}

pub(super) const FORMAT: Format = Format {
    codes: &[".qweight"],
    companions: &[ZEROS.suffix, SCALE.suffix, GROUP_INDEX.suffix],
    form,
    shape: |module| match (module.get(".qweight")?.1, module.get(SCALE.suffix)) {
        (&[_, columns], Some((_, &[_, outputs]))) if columns != outputs => None, // AWQ's
        (&[words, outputs], _) => Some(vec![outputs, words.saturating_mul(8)]),
        _ => None,
    },
    encoding: recognise,
};

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let [outputs, inputs] = held.matrix(".qweight", Dtype::I32)?;
    let &[words, columns] = held.main.2 else { return None };
    let scales = held.module.get(SCALE.suffix).and_then(|(_, shape)| shape.last());
    let bits = match bits(words, inputs) {
        _ if columns != outputs => return None,
        Some(bits) => bits,
        // AWQ has a row per input.
        None if scales == Some(&outputs) && words != inputs => {
            let bits = held.config.bits.unwrap_or(4);
            let expected = format!(
                "[{}, {outputs}] is expected, codes of {bits} bits for {inputs} inputs; download the \
                 tensor again",
                inputs * bits as usize / 32
            );
            return Some(Err(held.misshapen(".qweight", &expected)));
        }
        None => return None,
    };
    let name = StoredForm::Codes(format!("GPTQ INT{bits}").into());
    Some(affine::check(held, [outputs, inputs], bits as usize).map(|()| name))
}

fn recognise(module: &ModuleTensors<'_>, config: &QuantConfig) -> Option<Recognised> {
    let (dtype, codes) = module.get(".qweight")?;
    let (_, scales) = module.get(SCALE.suffix)?;
    if dtype != Dtype::I32 || codes.len() != 2 || codes.last() != scales.last() {
        return None;
    }
    let inputs = module.get(GROUP_INDEX.suffix).map(|(_, shape)| shape.iter().product());
    match inputs.and_then(|inputs| bits(codes[0], inputs)).or(config.bits) {
        None | Some(4) => Some(Ok(SharedEncoding::new(Gptq {
            version: None,
            label: config.gptq.unwrap_or(GptqLabel::V1),
            symmetric: config.symmetric,
            group_index: inputs.is_some(),
        }))),
        Some(bits) => Some(Err(Error::NotDecoded(format!("GPTQ of {bits} bits")))),
    }
}

/// Bits of a code, if so many words hold the codes of so many inputs.
fn bits(words: usize, inputs: usize) -> Option<u64> {
    [2, 3, 4, 8].into_iter().find(|bits| inputs * bits == words * 32).map(|bits| bits as u64)
}

impl Gptq {
    /// Of a known version; `group_index`: whether there is a `.g_idx`.
    #[must_use]
    pub fn new(version: GptqLabel, group_index: bool) -> Self {
        Self { version: Some(version), label: version, symmetric: None, group_index }
    }

    fn version(self, companions: &[TensorBytes<'_>]) -> GptqLabel {
        let all = |byte: u8| companions[0].bytes().iter().all(|zeros| *zeros == byte);
        match self.version {
            Some(version) => version,
            None if self.symmetric != Some(false) && all(0x77) => GptqLabel::V1,
            None if self.symmetric != Some(false) && all(0x88) => GptqLabel::V2,
            None => self.label,
        }
    }

    /// The zero point of an output in a group; 16 is no code.
    fn zero_point(self, companions: &[TensorBytes<'_>], out: usize, at: (usize, usize)) -> u8 {
        let stored = nibbles::get(companions[0].bytes(), at.0 * out + at.1);
        stored + u8::from(self.version(companions) == GptqLabel::V1)
    }

    /// The group of an input, of so many inputs.
    fn group(self, companions: &[TensorBytes<'_>], inputs: usize, input: usize) -> usize {
        match companions.get(2) {
            Some(index) => {
                let group = index.bytes().as_chunks::<4>().0[input];
                i32::from_le_bytes(group) as usize
            }
            None => input / (inputs / companions[1].shape()[0]),
        }
    }

    fn bad(self, reason: String) -> Error {
        Error::Encoding { encoding: self.name(), reason }
    }

    fn check_groups(
        self,
        inputs: usize,
        groups: usize,
        companions: &[TensorBytes<'_>],
    ) -> Result<(), Error> {
        let Some(index) = companions.get(2) else {
            return match groups > 0 && inputs.is_multiple_of(groups) && inputs > 0 {
                true => Ok(()),
                false => {
                    Err(self.bad(format!("{inputs} inputs are not {groups} groups of one size")))
                }
            };
        };
        if index.shape() != [inputs] {
            let got = index.shape();
            return Err(self.bad(format!("its companion `.g_idx` is {got:?}, expected [{inputs}]")));
        }
        let group = |bytes: &[u8; 4]| i32::from_le_bytes(*bytes);
        let mut all = index.bytes().as_chunks::<4>().0.iter().map(group).enumerate();
        let outside = |group: i32| usize::try_from(group).is_ok_and(|group| group < groups);
        match all.find(|(_, group)| !outside(*group)) {
            Some((input, group)) => Err(self.bad(format!(
                "`.g_idx` says that input {input} is of group {group}, and there are {groups}"
            ))),
            None => Ok(()),
        }
    }
}

impl Encoding for Gptq {
    fn name(&self) -> &'static str {
        match self.version {
            None => "gptq",
            Some(GptqLabel::V1) => "gptq (v1)",
            Some(GptqLabel::V2) => "gptq (v2)",
        }
    }

    fn dtype(&self) -> Dtype {
        Dtype::I32
    }

    fn suffix(&self) -> &'static str {
        ".qweight"
    }

    fn companions(&self) -> &'static [Companion] {
        match self.group_index {
            true => &[ZEROS, SCALE, GROUP_INDEX],
            false => &[ZEROS, SCALE],
        }
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        let &[words, out] = main else {
            return Err(self.bad(format!("`.qweight` of {main:?} is no matrix")));
        };
        let scales = companions[1].shape();
        let groups = scales.first().copied().unwrap_or_default();
        if !out.is_multiple_of(8) || scales != [groups, out] {
            return Err(self.bad(format!(
                "its companion `.scales` is {scales:?}, expected [groups, {out}], {out} a multiple \
                 of 8"
            )));
        }
        if companions[0].shape() != [groups, out / 8] {
            let (expected, got) = ([groups, out / 8], companions[0].shape());
            let reason = format!("its companion `.qzeros` is {got:?}, expected {expected:?}");
            return Err(self.bad(reason));
        }
        let inputs = words * 8;
        self.check_groups(inputs, groups, companions)?;
        Scales::of(&companions[1]).check(self.name(), SCALE.suffix, ZeroScale::Taken)?;
        Ok(vec![out, inputs])
    }

    fn mislabelled(&self, companions: &[TensorBytes<'_>]) -> Option<String> {
        let stored = self.version(companions);
        let name = |label| match label {
            GptqLabel::V1 => "1 (`checkpoint_format` `gptq`, or none)",
            GptqLabel::V2 => "2 (`checkpoint_format` `gptq_v2`)",
        };
        (stored != self.label).then(|| {
            let (said, is) = (name(self.label), name(stored));
            format!("zero points are of version {said}, and their values are of version {is}")
        })
    }

    fn zero_scales(&self) -> Option<usize> {
        Some(1)
    }

    fn row_bytes(&self, _: usize) -> Option<usize> {
        None
    }

    fn settled(&self, companions: &[TensorBytes<'_>]) -> Result<Option<SharedEncoding>, Error> {
        let settled = Self { version: Some(self.version(companions)), ..*self };
        Ok((settled != *self).then(|| SharedEncoding::new(settled)))
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let settled = Self { version: Some(self.version(rows.companions)), ..*self };
        let (inputs, width) = (rows.cols(), columns.len());
        let groups: Vec<usize> =
            columns.clone().map(|input| settled.group(rows.companions, inputs, input)).collect();
        let Some((&least, &most)) = groups.iter().min().zip(groups.iter().max()) else { return };
        let runs = runs(columns.clone(), &groups);
        let scales = (Scales::of(&rows.companions[1]), rows.shape[0]);
        for from in (0..rows.count).step_by(tiles::TRANSPOSED.rows) {
            let band = rows.some(from, tiles::TRANSPOSED.rows.min(rows.count - from), None);
            let zero =
                |group, row| settled.zero_point(rows.companions, rows.shape[0], (group, row));
            let factors = Factors::read(least..=most, (band.first, band.count), scales, zero);
            let out = &mut out[from * width..(from + band.count) * width];
            for run in &runs {
                decode_run(&band, run, (columns.start, &groups), &factors, out);
            }
        }
    }

    fn mark_without_zero(&self, rows: Rows<'_>, marks: &mut [bool]) -> u64 {
        marks.fill(false);
        if self.version(rows.companions) == GptqLabel::V2 {
            return 0;
        }
        let settled = Self { version: Some(GptqLabel::V1), ..*self };
        let (out, inputs) = (rows.shape[0], rows.cols());
        let lacks = |group| settled.zero_point(rows.companions, out, (group, rows.first)) > 0xf;
        let groups: Vec<bool> = (0..rows.companions[1].shape()[0]).map(lacks).collect();
        if !groups.contains(&true) {
            return 0;
        }
        for (input, mark) in marks.iter_mut().enumerate() {
            *mark = groups[self.group(rows.companions, inputs, input)];
        }
        marks.iter().map(|mark| u64::from(*mark)).sum()
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let (out, inputs) = (rows.shape[0], rows.cols());
        let (row, group) = (rows.first + row, self.group(rows.companions, inputs, col));
        let code = self.zero_point(rows.companions, out, (group, row));
        if code > 0xf {
            return false;
        }
        nibbles::set(rows.main, (col / 8 * out + row) * 8 + col % 8, code);
        true
    }
}

/// Columns whose words are decoded alike.
#[derive(Debug)]
struct Run {
    columns: Range<usize>,
    /// The group, of columns that are whole words of one.
    group: Option<usize>,
}

/// Cuts `columns`, of `groups`, into runs as long as they can be.
fn runs(columns: Range<usize>, groups: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut at = columns.start;
    while at < columns.end {
        let end = columns.end.min((at / 8 + 1) * 8);
        let of_word = &groups[at - columns.start..end - columns.start];
        let alike = of_word.len() == 8 && of_word.iter().all(|group| *group == of_word[0]);
        let group = alike.then(|| of_word[0]);
        match runs.last_mut() {
            Some(run) if run.group == group => run.columns.end = end,
            _ => runs.push(Run { columns: at..end, group }),
        }
        at = end;
    }
    runs
}

/// Words of a row that are turned at a time from columns of the main tensor into a row.
const WORDS: usize = 32;

/// Decodes a run of a band of rows, which are columns of the main tensor: each of its rows has eight
/// inputs of all outputs. `groups` are those of the columns that are decoded, from `start` on, and
/// `out` has them.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn decode_run(
    band: &Rows<'_>,
    run: &Run,
    (start, groups): (usize, &[usize]),
    factors: &Factors,
    out: &mut [f32],
) {
    let (outputs, width) = (band.shape[0], groups.len());
    let stored = band.main.as_chunks::<4>().0;
    let mut turned = [[[0; 4]; WORDS]; tiles::TRANSPOSED.rows];
    let mut at = run.columns.start;
    while at < run.columns.end {
        let first = at / 8;
        let end = run.columns.end.min((first + WORDS) * 8);
        for (place, word) in (first..end.div_ceil(8)).enumerate() {
            let words = &stored[word * outputs + band.first..][..band.count];
            for (row, word) in turned.iter_mut().zip(words) {
                row[place] = *word;
            }
        }
        for (row, words) in turned[..band.count].iter().enumerate() {
            let out = &mut out[row * width + at - start..][..end - at];
            if let Some(group) = run.group {
                let factor = factors.of(group, row);
                for (out, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                    *out = nibbles::eight(*word).map(|code| factor.value(code));
                }
            } else {
                for ((out, col), &group) in out.iter_mut().zip(at..end).zip(&groups[at - start..]) {
                    let code = nibbles::get(words.as_flattened(), col - first * 8);
                    *out = factors.of(group, row).value(u32::from(code));
                }
            }
        }
        at = end;
    }
}

//! Random weights with what pruning looks for in real ones: outliers, and experts that repeat each
//! other.

use moeprune_checkpoint::FusedTensor;
use moeprune_core::{
    AttentionProjection, Dtype, LayerTensor, LinearId, MlpProjection, NormWeights, TensorId,
};

use crate::{
    random::{NormalTable, Stream},
    shaped_tensor::{Role, ShapedTensor},
    source::Source,
};

/// Elements that come from one stream at a time.
const SPAN: usize = 64;
/// Elements in a random word.
const PER_WORD: usize = 4;
/// Of so many columns, and of so many rows, one is an outlier.
const OUTLIER_EVERY: usize = 256;
/// Entries of the hidden state that are large in every layer.
const LOUD: usize = 4;
/// Experts in a group of near copies.
const KIN: usize = 3;
/// Of so many spans of an expert, one is its own; the others it shares with its near copies.
const OWN_EVERY: u64 = 32;
/// How far the router rows of near copies are from what they share, relative to it.
const ROUTER_NOISE: f32 = 0.2;

/// How the elements of one tensor are made; each row can be made alone.
#[derive(Debug)]
pub(crate) struct Weights {
    cols: usize,
    /// Bytes of an element.
    element: usize,
    /// What this tensor has for itself.
    own: Stream,
    /// What it shares with near copies: one stream, or one for each row.
    common: Vec<Stream>,
    own_part: OwnPart,
    mean: f32,
    /// Standard deviation by column, padded to whole spans.
    deviation: Vec<f32>,
    /// Factor by row, 1 for rows beyond the end.
    row_factor: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
enum OwnPart {
    Nothing,
    /// Some spans.
    Spans,
    /// A little of every element.
    Noise(f32),
}

impl Weights {
    /// The recipe of a tensor.
    pub(crate) fn new(tensor: &ShapedTensor, source: Source) -> Self {
        let Source { seed, experts, norms, .. } = source;
        let plain = Self::plain(tensor, seed);
        let (own, rows) = (plain.own, tensor.named.shape.first().copied().unwrap_or(1));
        match &tensor.role {
            Role::Part(TensorId::Embedding) => plain.with(0.0, 0.5),
            Role::Part(TensorId::Layer(layer, LayerTensor::Linear(id))) => match *id {
                LinearId::Router => plain.with(0.0, 0.02).with_rows_of_kin(seed, *layer, experts),
                LinearId::Expert(expert, projection) => {
                    let kin = Kin::new(seed, *layer, experts).group(expert);
                    let common = Stream::new(seed, &format!("{layer} kin {kin} {projection:?}"));
                    let mut weights = plain.with(0.0, deviation_of(*id) * loudness(common));
                    weights.common = vec![common];
                    weights.own_part = OwnPart::Spans;
                    weights.with_outliers(common, rows)
                }
                _ => plain.with(0.0, deviation_of(*id)).with_outliers(own, rows),
            },
            // What is stored of matrices that are not decoded: scales are powers of two, 127 is one.
            Role::Experts(_) if tensor.named.dtype == Dtype::U8 => {
                if tensor.named.name.ends_with("_scales") {
                    plain.with(120.0, 1.0)
                } else {
                    plain.with(128.0, 64.0)
                }
            }
            Role::Experts(fused) => {
                plain.with(0.0, 0.015).with_slabs_of_kin(seed, fused, &tensor.named.shape)
            }
            Role::Part(
                TensorId::LmHead
                | TensorId::Layer(
                    _,
                    LayerTensor::Bias(_) | LayerTensor::CorrectionBias | LayerTensor::SharedGate(_),
                ),
            )
            | Role::Carried => plain.with(0.0, 0.02),
            Role::Part(_) if norms == NormWeights::MinusOne && tensor.is_vector() => {
                plain.with(0.0, 0.05).with_loud_entries(seed)
            }
            Role::Part(_) => plain.with(1.0, 0.05).with_loud_entries(seed),
        }
    }

    fn plain(tensor: &ShapedTensor, seed: u64) -> Self {
        let own = Stream::new(seed, &tensor.named.name);
        let cols = tensor.named.shape.last().copied().unwrap_or(1);
        Self {
            cols,
            element: tensor.named.dtype.bytes_of(1).unwrap_or_default(),
            own,
            common: vec![own],
            own_part: OwnPart::Nothing,
            mean: 0.0,
            deviation: vec![0.0; cols.next_multiple_of(SPAN)],
            row_factor: Vec::new(),
        }
    }

    fn with(mut self, mean: f32, deviation: f32) -> Self {
        self.mean = mean;
        self.deviation.fill(deviation);
        self
    }

    /// Writes one row as bf16, f32 or bytes, little-endian. `out` has the size of a row.
    pub(crate) fn fill(&self, row: usize, table: &NormalTable, out: &mut [u8]) {
        let words = (self.deviation.len() / PER_WORD) as u64;
        let (common, common_row) = match self.common.as_slice() {
            [one] => (*one, row),
            several => (several[row], 0),
        };
        let factor = self.row_factor.get(row).copied().unwrap_or(1.0);
        let (mut place, mut common_place) = (row as u64 * words, common_row as u64 * words);
        let element = self.element;
        for (out, deviation) in out.chunks_mut(element * SPAN).zip(self.deviation.chunks(SPAN)) {
            let mut values = [0.0; SPAN];
            match self.own_part {
                OwnPart::Spans if !place_is_shared(self.own, place) => {
                    draw(self.own, place, table, &mut values);
                }
                _ => draw(common, common_place, table, &mut values),
            }
            if let OwnPart::Noise(share) = self.own_part {
                let mut noise = [0.0; SPAN];
                draw(self.own, place, table, &mut noise);
                for (value, noise) in values.iter_mut().zip(noise) {
                    *value += share * noise;
                }
            }
            for (value, deviation) in values.iter_mut().zip(deviation) {
                *value = self.mean + *value * (deviation * factor);
            }
            match element {
                1 => out.iter_mut().zip(values).for_each(|(out, value)| *out = value as u8),
                2 => {
                    for (out, value) in out.chunks_exact_mut(2).zip(values) {
                        out.copy_from_slice(&to_bf16(value).to_le_bytes());
                    }
                }
                _ => {
                    for (out, value) in out.chunks_exact_mut(4).zip(values) {
                        out.copy_from_slice(&value.to_le_bytes());
                    }
                }
            }
            place += (SPAN / PER_WORD) as u64;
            common_place += (SPAN / PER_WORD) as u64;
        }
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.cols * self.element
    }

    /// A few columns and rows with weights several times as large.
    fn with_outliers(mut self, stream: Stream, rows: usize) -> Self {
        let place = |i: usize| u64::MAX - 1 - i as u64;
        let columns = self.cols.div_ceil(OUTLIER_EVERY);
        for i in 0..columns {
            let at = stream.index(place(2 * i), self.cols);
            self.deviation[at] *= 4.0 + 8.0 * stream.uniform(place(2 * i + 1)) as f32;
        }
        self.row_factor = vec![1.0; rows];
        for i in columns..columns + rows.div_ceil(OUTLIER_EVERY) {
            let at = stream.index(place(2 * i), rows);
            self.row_factor[at] = 2.0 + stream.uniform(place(2 * i + 1)) as f32;
        }
        self
    }

    /// Norms let the same entries of the hidden state through louder in every layer.
    fn with_loud_entries(mut self, seed: u64) -> Self {
        let stream = Stream::new(seed, "loud entries");
        for i in 0..LOUD {
            self.deviation[stream.index(i as u64, self.cols)] = 3.0;
        }
        self
    }

    /// Rows of near copies are alike. Some are longer than others, so that routing is uneven; by
    /// so little that the experts with the shortest are chosen too.
    fn with_rows_of_kin(mut self, seed: u64, layer: usize, experts: usize) -> Self {
        let kin = Kin::new(seed, layer, experts);
        let stream =
            |expert| Stream::new(seed, &format!("{layer} kin {} router", kin.group(expert)));
        self.common = (0..experts).map(stream).collect();
        let length = |common: &Stream| 0.9 + 0.2 * common.uniform(u64::MAX) as f32;
        self.row_factor = self.common.iter().map(length).collect();
        self.own_part = OwnPart::Noise(ROUTER_NOISE);
        self
    }

    /// Slabs of near copies are alike, row by row of the stored tensor.
    fn with_slabs_of_kin(mut self, seed: u64, fused: &FusedTensor, shape: &[usize]) -> Self {
        let (experts, layer) = (fused.experts().experts, fused.layer());
        let kin = Kin::new(seed, layer, experts);
        let kind = fused.parts(0).first().map(ToString::to_string).unwrap_or_default();
        let rows: usize = shape[..shape.len().saturating_sub(1)].iter().product();
        let each = (rows / experts.max(1)).max(1);
        let stream = |expert| Stream::new(seed, &format!("{kind} kin {}", kin.group(expert)));
        let groups: Vec<Stream> = (0..experts).map(stream).collect();
        let row = |row: usize| groups[(row / each).min(experts - 1)].row(row % each);
        self.common = (0..rows).map(row).collect();
        self.row_factor =
            (0..rows).map(|row| loudness(groups[(row / each).min(experts - 1)])).collect();
        self.own_part = OwnPart::Spans;
        self
    }
}

/// Quiet and loud experts, by a quarter either way.
fn loudness(common: Stream) -> f32 {
    0.75 + 0.5 * common.uniform(u64::MAX) as f32
}

/// Which experts of a layer are near copies of each other: half of them, in small groups.
struct Kin {
    /// Place of each expert in a random order.
    place: Vec<usize>,
}

impl Kin {
    fn new(seed: u64, layer: usize, experts: usize) -> Self {
        let stream = Stream::new(seed, &format!("{layer} kin"));
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by_key(|&expert| (stream.word(expert as u64), expert));
        let mut place = vec![0; experts];
        for (at, expert) in order.into_iter().enumerate() {
            place[expert] = at;
        }
        Self { place }
    }

    fn group(&self, expert: usize) -> usize {
        let (place, alone) = (self.place[expert], self.place.len() / 2);
        if place < alone { place } else { alone + (place - alone) / KIN }
    }
}

/// What feeds the residual stream is kept smaller, so that it does not grow with every layer.
fn deviation_of(id: LinearId) -> f32 {
    match id {
        LinearId::Attention(AttentionProjection::Output)
        | LinearId::Residual(MlpProjection::Down)
        | LinearId::Dense(MlpProjection::Down)
        | LinearId::Expert(_, MlpProjection::Down) => 0.01,
        _ => 0.02,
    }
}

fn place_is_shared(own: Stream, place: u64) -> bool {
    !own.word(!place).is_multiple_of(OWN_EVERY)
}

#[inline(always)]
fn draw(stream: Stream, place: u64, table: &NormalTable, values: &mut [f32; SPAN]) {
    for (word, values) in values.chunks_exact_mut(PER_WORD).enumerate() {
        let bits = stream.word(place + word as u64);
        for (i, value) in values.iter_mut().enumerate() {
            *value = table.get((bits >> (16 * i)) as u16);
        }
    }
}

/// Rounds to nearest even. Values here are finite and far from the largest, so there is no special
/// case to look for.
#[inline(always)]
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        fn check(value: f32, expected: u16) {
            assert_eq!(to_bf16(value), expected, "{value}");
        }
        check(0.0, 0);
        check(-0.0, 0x8000);
        check(1.0, 0x3f80);
        check(f32::from_bits(0x3f80_8000), 0x3f80);
        check(f32::from_bits(0x3f81_8000), 0x3f82);
        check(f32::from_bits(0x3f80_8001), 0x3f81);
        check(f32::from_bits(0xbf80_7fff), 0xbf80);
    }

    #[test]
    fn half_of_the_experts_have_kin() {
        let kin = Kin::new(0, 0, 128);
        let mut sizes = vec![0; 128];
        for expert in 0..128 {
            sizes[kin.group(expert)] += 1;
        }
        assert_eq!(sizes.iter().filter(|&&n| n == 1).count(), 65);
        assert_eq!(sizes.iter().filter(|&&n| n == KIN).count(), 21);
    }
}

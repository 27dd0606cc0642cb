//! Scales as they are stored.

use half::{bf16, f16};

use super::e4m3;
use crate::{Dtype, Error, TensorBytes};

/// Scales of any of the types that formats have them in. U8 is F8_E8M0 under another name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
}

/// Whether a scale of zero is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ZeroScale {
    /// It divides, or is for all weights.
    Refused,
    /// Small ones were rounded to it, or all weights under it are zero.
    Taken,
}

impl<'a> Scales<'a> {
    pub(super) fn of(tensor: &'a TensorBytes<'_>) -> Self {
        Self { dtype: tensor.dtype(), shape: tensor.shape(), bytes: tensor.bytes() }
    }

    /// Scale `index`, exact.
    pub(super) fn at(self, index: usize) -> f32 {
        let mut scale = [0.0];
        self.read(index, &mut scale);
        scale[0]
    }

    /// Scales from `first` on, exact.
    pub(super) fn read(self, first: usize, out: &mut [f32]) {
        match self.dtype {
            Dtype::F32 => self.convert(first, out, f32::from_le_bytes),
            Dtype::BF16 => self.convert(first, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::F16 => self.convert(first, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::F8_E4M3 => self.convert(first, out, |[code]| e4m3::value(code)),
            _ => self.convert(first, out, |[exponent]| power(exponent)),
        }
    }

    /// Where a scale is in its tensor, if that has several dimensions.
    fn position(self, at: usize) -> String {
        match *self.shape {
            [_, cols] if cols > 0 => format!(", at row {}, column {}", at / cols, at % cols),
            _ => String::new(),
        }
    }

    /// The first scale that is zero, and where.
    pub(super) fn first_zero(self) -> Option<(usize, String)> {
        let count = self.bytes.len() / self.size();
        let mut scales = [1.0; 256];
        (0..count).step_by(scales.len()).find_map(|first| {
            let scales = &mut scales[..(count - first).min(256)];
            self.read(first, scales);
            let at = first + scales.iter().position(|scale| *scale == 0.0)?;
            Some((at, self.position(at)))
        })
    }

    /// The same scales with ones in place of zeros.
    pub(super) fn without_zeros(self) -> Result<TensorBytes<'static>, Error> {
        let mut scales = vec![0.0; self.bytes.len() / self.size()];
        self.read(0, &mut scales);
        scales.iter_mut().filter(|scale| **scale == 0.0).for_each(|scale| *scale = 1.0);
        TensorBytes::encode(self.dtype, self.shape, &scales)
    }

    fn convert<const N: usize>(self, first: usize, out: &mut [f32], from: impl Fn([u8; N]) -> f32) {
        let stored = self.bytes[first * N..(first + out.len()) * N].as_chunks::<N>().0;
        for (out, &bytes) in out.iter_mut().zip(stored) {
            *out = from(bytes);
        }
    }

    /// Refuses scales that are no numbers, or zero. `suffix` is the companion's.
    pub(super) fn check(
        self,
        encoding: &'static str,
        suffix: &str,
        zero: ZeroScale,
    ) -> Result<(), Error> {
        let good = |scale: f32| scale.is_finite() && (scale != 0.0 || zero == ZeroScale::Taken);
        let mut scales = [0.0; 256];
        let count = self.bytes.len() / self.size();
        for first in (0..count).step_by(scales.len()) {
            let scales = &mut scales[..(count - first).min(256)];
            self.read(first, scales);
            if scales.iter().fold(true, |all, &scale| all & good(scale)) {
                continue;
            }
            let bad = scales.iter().position(|&scale| !good(scale)).unwrap_or_default();
            let (at, scale) = (first + bad, scales[bad]);
            let reason = format!(
                "scale {at} of its companion `{suffix}` is {scale}{}; download it again; whole experts can \
                 still be removed, by router distance or a keep-list",
                self.position(at)
            );
            return Err(Error::Encoding { encoding, reason });
        }
        Ok(())
    }
}

/// A scale as it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StoredScale {
    /// Its bytes, as many as its type has.
    pub(super) bytes: [u8; 4],
    pub(super) value: f32,
}

impl Scales<'_> {
    /// Bytes of a scale.
    pub(super) fn size(self) -> usize {
        match self.dtype {
            Dtype::F32 => 4,
            Dtype::BF16 | Dtype::F16 => 2,
            _ => 1,
        }
    }

    /// Scale `index` as it is stored.
    pub(super) fn stored(self, index: usize) -> StoredScale {
        let size = self.size();
        let mut bytes = [0; 4];
        bytes[..size].copy_from_slice(&self.bytes[index * size..][..size]);
        StoredScale { bytes, value: self.at(index) }
    }

    /// The scale of this type that is nearest to `scale`; of powers of two the least that is not below it.
    /// `None` if that is not positive and finite.
    pub(super) fn nearest(self, scale: f32) -> Option<StoredScale> {
        let mut bytes = [0; 4];
        let value = match self.dtype {
            Dtype::F32 => {
                bytes = scale.to_le_bytes();
                scale
            }
            Dtype::BF16 => {
                let near = bf16::from_f32(scale);
                bytes[..2].copy_from_slice(&near.to_le_bytes());
                near.to_f32()
            }
            Dtype::F16 => {
                let near = f16::from_f32(scale);
                bytes[..2].copy_from_slice(&near.to_le_bytes());
                near.to_f32()
            }
            Dtype::F8_E4M3 => {
                bytes[0] = e4m3::nearest(scale);
                e4m3::value(bytes[0])
            }
            _ => {
                let power = power_not_below(scale);
                bytes[0] = (power.to_bits() >> 23) as u8;
                power
            }
        };
        (value > 0.0 && value.is_finite()).then_some(StoredScale { bytes, value })
    }
}

/// The least power of two that is not below `scale` and a normal number.
pub(super) fn power_not_below(scale: f32) -> f32 {
    let scale = scale.max(f32::MIN_POSITIVE);
    let down = f32::from_bits(scale.to_bits() & 0x7f80_0000);
    if down == scale { scale } else { down * 2.0 }
}

/// F8_E8M0: `2^(exponent − 127)`; the largest exponent stands for NaN.
pub(super) fn power(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22), // below the smallest normal number
        0xff => f32::NAN,
        _ => f32::from_bits(u32::from(exponent) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::{Scales, ZeroScale};
    use crate::{Dtype, TensorBytes};

    fn check(dtype: Dtype, bytes: &[u8], expected: &[f32]) {
        let tensor = TensorBytes::new(dtype, [expected.len()], bytes).expect("fits");
        let scales = Scales::of(&tensor);
        let got: Vec<f32> = (0..expected.len()).map(|index| scales.at(index)).collect();
        assert_eq!(got, expected, "{dtype}");
    }

    #[test]
    fn types() {
        check(Dtype::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40], &[1.0, 2.0]);
        check(Dtype::BF16, &[0x80, 0x3f, 0, 0x40], &[1.0, 2.0]);
        check(Dtype::F16, &[0, 0x3c, 1, 0], &[1.0, 2f32.powi(-24)]);
        check(Dtype::F8_E4M3, &[0x38, 0x48], &[1.0, 4.0]);
        let powers = [1.0, 2f32.powi(-6), 2f32.powi(127), 2f32.powi(-126), 2f32.powi(-126) / 2.0];
        check(Dtype::U8, &[127, 121, 254, 1, 0], &powers);
        check(Dtype::F8_E8M0, &[127, 121, 254, 1, 0], &powers);
    }

    #[test]
    fn what_is_no_scale() {
        let refused = |values: &[f32], zero| {
            let tensor = TensorBytes::encode(Dtype::F32, [values.len()], values).expect("fits");
            let checked = Scales::of(&tensor).check("fp8", ".weight_scale", zero);
            checked.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let mut many = vec![1.0; 700];
        assert_eq!(refused(&many, ZeroScale::Refused), "");
        many[600] = f32::NAN;
        let message = refused(&many, ZeroScale::Refused);
        assert!(
            message.contains("scale 600 of its companion `.weight_scale` is NaN; download"),
            "{message}"
        );
        assert!(refused(&[1.0, f32::INFINITY], ZeroScale::Taken).contains("is inf;"));
        assert!(refused(&[0.0], ZeroScale::Refused).contains("is 0;"));
        assert_eq!(refused(&[0.0, -1.0], ZeroScale::Taken), "");
    }
}

//! Sums that do not depend on the order of what is added.

/// A sum in fixed point of 192 bits: whole units of 2^−112, from −2^79 to 2^79.
///
/// Adding doubles rounds each time, so that (a + b) + c and a + (b + c) differ in their last bits. Whole numbers
/// do not: this sum has the same bits in any order and any grouping. A double is cut to units when it becomes one,
/// toward zero; from 2^−60 (8.7e−19) on, that changes nothing. Beyond 2^79 (6e23) nothing is representable, and
/// [`of`](Self::of) and [`checked_add`](Self::checked_add) say so.
///
/// ```
/// # use moeprune_core::observation::WideSum;
/// let terms = [1e16, 1.0, -1e16, 2f64.powi(-60)].map(|term| WideSum::of(term).unwrap());
/// let add = |sum: WideSum, term: &WideSum| sum.checked_add(*term).unwrap();
/// let forwards = terms.iter().fold(WideSum::ZERO, add);
/// let backwards = terms.iter().rev().fold(WideSum::ZERO, add);
/// assert_eq!(forwards, backwards);
/// assert_eq!(forwards.to_f64(), 1.0); // 1 + 2^−60, rounded once
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WideSum {
    /// Two's complement, the lowest first.
    limbs: [u64; Self::LIMBS],
}

/// A unit is 2 to the power of minus this.
const FRACTION_BITS: i32 = 112;
/// Bits of a double's mantissa, the hidden one included.
const MANTISSA_BITS: u32 = 53;

impl WideSum {
    /// Words of 64 bits that it has.
    pub const LIMBS: usize = 3;

    /// Nothing added yet.
    pub const ZERO: Self = Self { limbs: [0; Self::LIMBS] };

    /// The sum of one value; `None` if it is not finite or 2^79 or more in magnitude.
    #[must_use]
    pub fn of(value: f64) -> Option<Self> {
        const MOST_SHIFT: i32 = 191 - MANTISSA_BITS as i32;
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7FF) as i32;
        if exponent == 0 {
            // Zero, or far below a unit.
            return Some(Self::ZERO);
        }
        let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
        let shift = exponent - 1075 + FRACTION_BITS;
        if shift > MOST_SHIFT {
            return None;
        }
        let mut limbs = [0; Self::LIMBS];
        if shift < 0 {
            limbs[0] = mantissa.checked_shr(shift.unsigned_abs()).unwrap_or(0);
        } else {
            let (limb, within) = (shift as usize / 64, shift as u32 % 64);
            limbs[limb] = mantissa << within;
            if within > 0 && limb + 1 < Self::LIMBS {
                limbs[limb + 1] = mantissa >> (64 - within);
            }
        }
        let sum = Self { limbs };
        Some(if value.is_sign_negative() { sum.negated() } else { sum })
    }

    /// Both sums together; `None` beyond what is representable.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let mut limbs = [0; Self::LIMBS];
        let mut carry = false;
        for (sum, (a, b)) in limbs.iter_mut().zip(self.limbs.into_iter().zip(other.limbs)) {
            let (partial, first) = a.overflowing_add(b);
            let (whole, second) = partial.overflowing_add(u64::from(carry));
            (*sum, carry) = (whole, first | second);
        }
        let sum = Self { limbs };
        let overflows =
            self.is_negative() == other.is_negative() && sum.is_negative() != self.is_negative();
        (!overflows).then_some(sum)
    }

    /// The nearest double, of two equally near ones the even.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        let magnitude = if self.is_negative() { self.negated() } else { self }.limbs;
        let Some(top) = magnitude.iter().rposition(|&limb| limb != 0) else { return 0.0 };
        let bits = (top as u32 + 1) * 64 - magnitude[top].leading_zeros();
        let drop = bits.saturating_sub(MANTISSA_BITS);
        let mut mantissa = shifted(magnitude, drop)[0];
        if drop > 0 {
            let kept_again = shifted(magnitude, drop - 1)[0];
            let half = kept_again & 1 == 1;
            let below = any_below(magnitude, drop - 1);
            mantissa += u64::from(half && (below || mantissa & 1 == 1));
        }
        let value = mantissa as f64 * power_of_two(drop as i32 - FRACTION_BITS);
        if self.is_negative() { -value } else { value }
    }

    /// Its words, the lowest first, in two's complement.
    #[must_use]
    pub fn limbs(self) -> [u64; Self::LIMBS] {
        self.limbs
    }

    /// The sum of these words; any are one.
    #[must_use]
    pub fn from_limbs(limbs: [u64; Self::LIMBS]) -> Self {
        Self { limbs }
    }

    /// Whether it is below 0.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.limbs[Self::LIMBS - 1] >> 63 == 1
    }

    fn negated(self) -> Self {
        let mut carry = true;
        let limbs = self.limbs.map(|limb| {
            let (negated, overflows) = (!limb).overflowing_add(u64::from(carry));
            carry = overflows;
            negated
        });
        Self { limbs }
    }
}

/// `limbs` without the lowest `by` bits.
fn shifted(limbs: [u64; WideSum::LIMBS], by: u32) -> [u64; WideSum::LIMBS] {
    let (words, within) = (by as usize / 64, by % 64);
    let limb = |at: usize| limbs.get(at).copied().unwrap_or(0);
    std::array::from_fn(|at| {
        let low = limb(at + words) >> within;
        match within {
            0 => low,
            _ => low | limb(at + words + 1) << (64 - within),
        }
    })
}

/// Whether one of the lowest `bits` bits is set.
fn any_below(limbs: [u64; WideSum::LIMBS], bits: u32) -> bool {
    let (words, within) = (bits as usize / 64, bits % 64);
    let partial = limbs.get(words).is_some_and(|limb| limb & ((1 << within) - 1) != 0);
    partial || limbs.iter().take(words).any(|&limb| limb != 0)
}

/// 2 to the power of an exponent that a normal double has.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(terms: &[f64]) -> Option<WideSum> {
        terms.iter().try_fold(WideSum::ZERO, |sum, &term| sum.checked_add(WideSum::of(term)?))
    }

    #[test]
    fn values_come_back() {
        let check =
            |value: f64| assert_eq!(WideSum::of(value).unwrap().to_f64(), value, "{value:e}");
        for value in [
            0.0,
            1.0,
            -1.0,
            0.1,
            -0.1,
            1e-18,
            3.0e22,
            2f64.powi(78),
            -(2f64.powi(78)),
            2f64.powi(-112),
        ] {
            check(value);
        }
        check(2f64.powi(79).next_down());
        assert_eq!(WideSum::of(-0.0).unwrap().to_f64().to_bits(), 0);
    }

    #[test]
    fn what_is_too_large_or_no_number_is_none() {
        for value in
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2f64.powi(79), -(2f64.powi(79)), f64::MAX]
        {
            assert_eq!(WideSum::of(value), None, "{value:e}");
        }
        let most = WideSum::of(2f64.powi(78)).unwrap();
        assert_eq!(most.checked_add(most), None);
        let least = WideSum::of(-(2f64.powi(78))).unwrap();
        // Two's complement has one more negative number.
        assert_eq!(least.checked_add(least).unwrap().to_f64(), -(2f64.powi(79)));
        assert_eq!(least.checked_add(least).unwrap().checked_add(least), None);
        assert_eq!(most.checked_add(least).unwrap(), WideSum::ZERO);
    }

    #[test]
    fn what_is_less_than_a_unit_is_cut_off() {
        let check =
            |value: f64, expected: f64| assert_eq!(WideSum::of(value).unwrap().to_f64(), expected);
        check(2f64.powi(-113), 0.0);
        check(-(2f64.powi(-113)), 0.0);
        check(f64::MIN_POSITIVE, 0.0);
        check(f64::MIN_POSITIVE / 4.0, 0.0);
        check(2f64.powi(-112) * 1.5, 2f64.powi(-112));
    }

    #[test]
    fn ties_go_to_the_even() {
        let one_more = 2f64.powi(53) + 2.0;
        let check = |terms: &[f64], expected: f64| {
            assert_eq!(sum(terms).unwrap().to_f64(), expected, "{terms:?}")
        };
        check(&[2f64.powi(53), 1.0], 2f64.powi(53));
        check(&[2f64.powi(53), 1.0, 2f64.powi(-100)], one_more);
        check(&[one_more, 1.0], one_more + 2.0);
        check(&[-(2f64.powi(53)), -1.0], -(2f64.powi(53)));
        check(&[2f64.powi(53) - 1.0, 0.5], 2f64.powi(53));
    }

    proptest! {
        /// Against whole numbers of 128 bits.
        #[test]
        fn sums_are_exact_and_rounded_once(
            terms in prop::collection::vec(-(1_i64 << 52)..1 << 52, 0..40),
            scale in 0_i32..60,
        ) {
            let scaled: Vec<f64> = terms.iter().map(|&t| t as f64 * power_of_two(-scale)).collect();
            let exact: i128 = terms.iter().map(|&t| i128::from(t)).sum();
            let found = sum(&scaled).unwrap();
            prop_assert_eq!(found.to_f64(), exact as f64 * power_of_two(-scale));
            prop_assert_eq!(WideSum::from_limbs(found.limbs()), found);
        }

        #[test]
        fn order_and_grouping_change_nothing(
            terms in prop::collection::vec(-1e20_f64..1e20, 1..40),
            tiny in prop::collection::vec(-1e-20_f64..1e-20, 1..40),
            at in 0_usize..80,
        ) {
            let mut all: Vec<f64> = terms.into_iter().chain(tiny).collect();
            let forwards = sum(&all).unwrap();
            let at = at.min(all.len());
            let (left, right) = (sum(&all[..at]).unwrap(), sum(&all[at..]).unwrap());
            prop_assert_eq!(left.checked_add(right).unwrap(), forwards);
            prop_assert_eq!(right.checked_add(left).unwrap(), forwards);
            all.reverse();
            prop_assert_eq!(sum(&all).unwrap(), forwards);
        }
    }
}

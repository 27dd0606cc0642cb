//! One source for each inner loop, compiled for several instruction sets.
//!
//! The compiler turns the loops of this crate into vector instructions, but only into those that
//! it compiles for: without this module the oldest x86-64. A function made by [`dispatched`] exists once
//! for each instruction set and runs the one its [`Level`] names. No loop may add floats in an
//! order that its source does not spell out, so that all give the same bits.

use std::sync::OnceLock;

/// An instruction set that this machine has been seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(Set);

/// Public to the crate for [`dispatched`] only: what a [`Level`] holds is made in this module
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Names the widest instruction set to use, `portable`, `avx2` or `avx512`; anything else, or
/// more than the machine has, means the widest it has.
const LIMIT: &str = "MOEPRUNE_SIMD";

impl Level {
    /// The widest instruction set of this machine, or as `MOEPRUNE_SIMD` limits it.
    pub(crate) fn detected() -> Self {
        static DETECTED: OnceLock<Level> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let limit = std::env::var(LIMIT).unwrap_or_default();
            let all = Self::all();
            let limited = all.iter().rfind(|level| level.name() == limit);
            *limited.unwrap_or(&all[all.len() - 1])
        })
    }

    /// What this machine has, the narrowest first; at least the portable code.
    pub(crate) fn all() -> Vec<Self> {
        let mut levels = vec![Self(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                levels.push(Self(Set::Avx2));
            }
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                levels.push(Self(Set::Avx512));
            }
        }
        levels
    }

    pub(crate) fn set(self) -> Set {
        self.0
    }

    fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }
}

/// Defines a function that takes a [`Level`] before its arguments and runs its body as compiled
/// for that instruction set. What the body calls must be `#[inline(always)]` to be compiled so too.
macro_rules! dispatched {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    ) => {
        $(#[$attribute])*
        $visibility fn $name(level: $crate::simd::Level, $($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $type),*) $(-> $output)? {
                body($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($argument: $type),*) $(-> $output)? {
                body($($argument),*)
            }

            #[cfg_attr(
                target_arch = "x86_64",
                expect(unsafe_code, reason = "instructions beyond the baseline, seen to be there")
            )]
            match level.set() {
                $crate::simd::Set::Portable => body($($argument),*),
                // SAFETY: a `Level` of this set is only made where its features were detected.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Set::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: a `Level` of this set is only made where its features were detected.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Set::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    };
}
pub(crate) use dispatched;

/// Prefetches the bytes from `start` on, where there is an instruction for it.
#[inline(always)]
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "an instruction that takes a bare address")
)]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "nothing to ask"))]
pub(crate) fn prefetch(start: *const u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..length).step_by(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is in the baseline, and a hint only: nothing is read, at any
        // address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset).cast()) }
    }
}

/// Bytes that memory is moved in.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Runs `run` at every level this machine has and compares the results with the portable one's.
#[cfg(test)]
#[track_caller]
pub(crate) fn same_at_all_levels<T: PartialEq>(run: impl Fn(Level) -> T) -> T {
    let portable = run(Level(Set::Portable));
    for level in Level::all() {
        assert!(run(level) == portable, "{level:?} is not as the portable code");
    }
    portable
}

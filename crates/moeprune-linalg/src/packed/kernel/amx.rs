//! Kernels of AMX: squares of 16 by 16 sums, to which products of 32 inputs in bf16 are added at a time.
//!
//! An f32 is three bf16, its upper, middle and lower eight bits of mantissa, so rows of f32 are multiplied as three rows
//! of bf16 that are added to the same sums. With any settings of the processor, tiles round to the nearest (to even) and take what is below
//! the smallest normal number as zero.

use std::{
    arch::{
        asm,
        x86_64::{__cpuid_count, _xgetbv, *},
    },
    sync::OnceLock,
};

use super::WIDTH;

/// Inputs of a step.
pub(in super::super) const STEP: usize = 32;
/// Rows of a group: two tiles.
pub(in super::super) const GROUP: usize = 32;
/// bf16 that a group's inputs of a step take: three parts, lower before upper, of [`GROUP`] rows of [`STEP`].
pub(in super::super) const STEP_PARTS: usize = 3 * GROUP * STEP;
/// Words that a panel's weights of a step take.
pub(in super::super) const STEP_WORDS: usize = STEP / 2 * WIDTH;

/// A machine that has been seen to have tiles, with leave to use them.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Amx(());

/// Tiles that are set up in this thread.
pub(in super::super) struct Tiles(());

/// A group of rows times some steps of a panel.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct TileRun {
    /// At least 1.
    pub(in super::super) steps: usize,
    /// [`STEP_PARTS`] numbers for each step.
    pub(in super::super) x: *const u16,
    /// [`STEP_WORDS`] words for each step.
    pub(in super::super) weights: *const u32,
    /// `GROUP` rows of `WIDTH` numbers, to which products are added.
    pub(in super::super) sums: *mut f32,
    /// Numbers from a row of sums to the next.
    pub(in super::super) stride: usize,
}

#[repr(C, align(64))]
struct Setting {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The bits of XCR0 that say that the system keeps tiles, and the number of the one for their data.
const TILE_STATE: u64 = 3 << 17;
const TILE_DATA: usize = 18;

impl Amx {
    /// Asks once for leave, which holds for all threads.
    pub(in super::super) fn detected() -> Option<Self> {
        static DETECTED: OnceLock<bool> = OnceLock::new();
        DETECTED.get_or_init(|| is_there() && is_allowed()).then_some(Self(()))
    }

    /// Sets the tiles of this thread up.
    pub(in super::super) fn begin(self) -> Tiles {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].fill(64);
        rows[..8].fill(16);
        let setting = Setting { palette: 1, start: 0, reserved: [0; 14], row_bytes, rows };
        // SAFETY: the machine has tiles and the process leave to use them; the setting is that of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const setting, options(nostack, readonly)) };
        Tiles(())
    }

    /// Splits the inputs of a row: those of a step after the other, each in its three parts, to `to`, from where the
    /// row begins in its group's first step. Of the last step what is missing is zero.
    ///
    /// # Safety
    /// `to` must have room for a row of a group of so many steps.
    pub(in super::super) unsafe fn split(self, row: &[f32], to: *mut u16) {
        for (step, inputs) in row.chunks(STEP).enumerate() {
            let mut whole = [0.0; STEP];
            let inputs = match inputs.try_into() {
                Ok(inputs) => inputs,
                Err(_) => {
                    whole[..inputs.len()].copy_from_slice(inputs);
                    &whole
                }
            };
            // SAFETY: what has AMX has AVX-512 with words; the caller's promise.
            unsafe { split_step(inputs, to.add(step * STEP_PARTS)) };
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the machine has tiles. Their values are not used any more.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl Tiles {
    /// Computes a group, or of `halves` 1 the first half of its rows.
    ///
    /// # Safety
    /// What [`TileRun`] says of its pointers must hold, and nothing else use what `sums` points to.
    pub(in super::super) unsafe fn multiply(&self, run: &TileRun, halves: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if halves == 1 {
                half(run);
            } else {
                both(run);
            }
        }
    }
}

fn is_there() -> bool {
    let leaf = __cpuid_count(7, 0);
    let (tiles, bf16) = (leaf.edx >> 24 & 1, leaf.edx >> 22 & 1);
    let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    if tiles == 0 || bf16 == 0 || !wide || !is_x86_feature_detected!("xsave") {
        return false;
    }
    // SAFETY: the processor has XSAVE, and AVX-512 is only detected where the system uses it.
    unsafe { xcr0() & TILE_STATE == TILE_STATE }
}

#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: register 0 exists where XSAVE does.
    unsafe { _xgetbv(0) }
}

/// Whether Linux lets this process use tiles: since it saves their 8 kB only for those who ask.
#[cfg(target_os = "linux")]
fn is_allowed() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call changes nothing in memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_allowed() -> bool {
    false
}

/// The three parts of a step of a row.
///
/// # Safety
/// `to` must have room for a row of a group.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn split_step(inputs: &[f32; STEP], to: *mut u16) {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let odd: [u16; STEP] = std::array::from_fn(|i| (2 * i + 1) as u16);
    // SAFETY: `inputs` and `odd` are as long as is read; the caller's promise.
    unsafe {
        let odd = _mm512_loadu_si512(odd.as_ptr().cast());
        let mut rest = [_mm512_loadu_ps(inputs.as_ptr()), _mm512_loadu_ps(inputs.as_ptr().add(16))];
        // What is no number or infinite stays so in its upper part, and has no others.
        let (mut heads, is_finite) = (rest, rest.map(|x| is_finite(x)));
        for part in (0..3).rev() {
            for half in 0..2 {
                let bits = _mm512_castps_si512(rest[half]);
                let kept = _mm512_and_si512(bits, upper);
                let quiet = _mm512_or_si512(kept, _mm512_set1_epi32(0x0040_0000));
                let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(rest[half], rest[half]);
                heads[half] = _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_nan, kept, quiet));
                rest[half] = _mm512_maskz_sub_ps(is_finite[half], rest[half], heads[half]);
            }
            let [low, high] = heads.map(|head| _mm512_castps_si512(head));
            let words = _mm512_permutex2var_epi16(low, odd, high);
            _mm512_storeu_si512(to.add(part * GROUP * STEP).cast(), words);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn is_finite(x: __m512) -> __mmask16 {
    let size = _mm512_abs_ps(x);
    _mm512_cmp_ps_mask::<_CMP_LT_OQ>(size, _mm512_set1_ps(f32::INFINITY))
}

/// Two tiles of rows by two of outputs.
///
/// # Safety
/// As [`Tiles::multiply`].
unsafe fn both(run: &TileRun) {
    // SAFETY: the caller's promise; the tiles are set up as squares of 64 bytes by 16 rows.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {out}]",
            "tileloadd tmm1, [{sums} + {out} + 64]",
            "tileloadd tmm2, [{lower} + {out}]",
            "tileloadd tmm3, [{lower} + {out} + 64]",
            "2:",
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm4, [{x} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{weights} + {row} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{x} + {line} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {line} + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{x} + {line} + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {line} + 5120]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x}, 6144",
            "add {weights}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {out}], tmm0",
            "tilestored [{sums} + {out} + 64], tmm1",
            "tilestored [{lower} + {out}], tmm2",
            "tilestored [{lower} + {out} + 64], tmm3",
            x = inout(reg) run.x => _,
            weights = inout(reg) run.weights => _,
            steps = inout(reg) run.steps => _,
            sums = in(reg) run.sums,
            lower = in(reg) run.sums.wrapping_add(16 * run.stride),
            out = in(reg) 4 * run.stride,
            row = in(reg) 4 * WIDTH,
            line = in(reg) 2 * STEP,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// One tile of rows by two of outputs.
///
/// # Safety
/// As [`Tiles::multiply`].
unsafe fn half(run: &TileRun) {
    // SAFETY: the caller's promise; the tiles are set up as squares of 64 bytes by 16 rows.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {out}]",
            "tileloadd tmm1, [{sums} + {out} + 64]",
            "2:",
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm7, [{weights} + {row} + 64]",
            "tileloadd tmm4, [{x} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {line} + 2048]",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm7",
            "tileloadd tmm4, [{x} + {line} + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {x}, 6144",
            "add {weights}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {out}], tmm0",
            "tilestored [{sums} + {out} + 64], tmm1",
            x = inout(reg) run.x => _,
            weights = inout(reg) run.weights => _,
            steps = inout(reg) run.steps => _,
            sums = in(reg) run.sums,
            out = in(reg) 4 * run.stride,
            row = in(reg) 4 * WIDTH,
            line = in(reg) 2 * STEP,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _,
            out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

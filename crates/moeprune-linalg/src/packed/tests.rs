use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use super::{
    PackedElements, PackedWeights, has_tiles, kernel::Level, multiply::multiply_at,
    multiply_in_tiles, multiply_packed,
};

/// Numbers from −1 to 1 that bf16 holds.
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wide = (state >> 8) as f32 / 8_388_608.0 - 1.0;
        f32::from_bits(wide.to_bits() & 0xffff_0000)
    };
    (0..len).map(|_| next()).collect()
}

/// Shape of a product: rows, outputs, inputs.
type Shape = (usize, usize, usize);

/// One chain of fused multiply-adds after the other, each from zero and of 512 at most.
fn by_definition((_, outputs, inputs): Shape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let element = |x: &[f32], w: &[f32]| {
        let chain = |(x, w): (&[f32], &[f32])| {
            x.iter().zip(w).fold(0.0_f32, |sum, (x, w)| x.mul_add(*w, sum))
        };
        let chains = x.chunks(512).zip(w.chunks(512)).map(chain);
        chains.reduce(|sum, chain| sum + chain).unwrap_or(0.0)
    };
    let row = |x: &[f32]| w.chunks(inputs).map(|w| element(x, w)).collect::<Vec<_>>();
    let out: Vec<f32> = x.chunks(inputs).flat_map(row).collect();
    assert_eq!(out.len() % outputs, 0);
    out
}

/// Weights in pieces of rows, as several Linears that are read as one.
fn packed(elements: PackedElements, inputs: usize, w: &[f32], buffer: Vec<u32>) -> PackedWeights {
    let outputs = w.len() / inputs;
    let mut packed = PackedWeights::new(elements, outputs, inputs, buffer);
    let filled: Result<(), ()> = packed.fill(|outputs, panel| {
        let half = outputs.len() / 2;
        for (at, rows) in
            [(0, outputs.start..outputs.start + half), (half, outputs.start + half..outputs.end)]
        {
            let rows = &w[rows.start * inputs..rows.end * inputs];
            if elements == PackedElements::F32 {
                panel.put_f32(at, rows.len() / inputs, |numbers| {
                    numbers.copy_from_slice(rows);
                    Ok(())
                })?;
            } else {
                let bytes = rows.iter().flat_map(|w| ((w.to_bits() >> 16) as u16).to_le_bytes());
                panel.put_bf16(at, &bytes.collect::<Vec<_>>());
            }
        }
        Ok(())
    });
    filled.unwrap();
    packed
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Both ways to hold the weights, by every instruction set that there is.
fn check(shape: Shape) {
    let (rows, outputs, inputs) = shape;
    let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
    let expected = bits(&by_definition(shape, &x, &w));
    for elements in [PackedElements::Bf16, PackedElements::F32] {
        // Memory that held something else.
        let weights = packed(elements, inputs, &w, vec![0x7fc1_7fc1; 7000]);
        for level in Level::all() {
            let mut out = vec![f32::NAN; rows * outputs];
            multiply_at(level, rows, &x, &weights, &mut out);
            assert!(bits(&out) == expected, "{shape:?} as {elements:?} by {level:?}");
        }
    }
}

#[test]
fn any_instruction_set_gives_the_chains_of_the_definition() {
    check((1, 1, 1));
    check((1, 33, 2));
    check((2, 32, 3));
    check((12, 31, 16));
    check((13, 64, 17));
    check((24, 65, 511));
    check((25, 3, 512));
    check((37, 40, 513));
    check((5, 96, 1025));
    check((100, 20, 130));
    // More rows than are packed together.
    check((481, 33, 40));
}

#[test]
fn nothing_to_multiply() {
    let weights = PackedWeights::new(PackedElements::F32, 3, 0, Vec::new());
    let mut out = [1.0; 6];
    multiply_packed(2, &[], &weights, &mut out);
    assert_eq!(out, [0.0; 6]);
    multiply_packed(0, &[], &weights, &mut []);
    multiply_packed(2, &[1.0; 6], &packed(PackedElements::Bf16, 3, &[], Vec::new()), &mut []);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for (rows, outputs, inputs) in [(1, 4000, 2100), (70, 300, 700), (1000, 70, 300)] {
        let (x, w) = (noise(rows * inputs, 3), noise(outputs * inputs, 4));
        let run = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let weights = packed(PackedElements::Bf16, inputs, &w, Vec::new());
                let mut out = vec![0.0; rows * outputs];
                multiply_packed(rows, &x, &weights, &mut out);
                bits(&out)
            })
        };
        let alone = run(1);
        assert!(run(2) == alone && run(7) == alone, "{rows} {outputs} {inputs}");
    }
}

#[test]
fn the_first_panel_that_fails_is_named() {
    for outputs in [100, 3000] {
        let mut weights = PackedWeights::new(PackedElements::Bf16, outputs, 400, Vec::new());
        let error =
            weights.fill(|outputs, _| if outputs.start >= 64 { Err(outputs) } else { Ok(()) });
        assert_eq!(error, Err(64..96));
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let weights = packed(PackedElements::Bf16, 2, &[1.0, f32::INFINITY, 0.0, 2.0], Vec::new());
    let mut out = [0.0; 4];
    multiply_packed(2, &[1.0, 1.0, f32::NAN, 0.0], &weights, &mut out);
    assert!(out[0] == f32::INFINITY && out[1] == 2.0 && out[2].is_nan() && out[3].is_nan());
}

#[test]
#[should_panic(expected = "outputs of the panel")]
fn more_rows_than_a_panel_has() {
    let mut weights = PackedWeights::new(PackedElements::Bf16, 40, 2, Vec::new());
    let _ = weights.fill(|_, panel| {
        panel.put_bf16(20, &[0; 4 * 13]);
        Ok::<_, ()>(())
    });
}

/// The root of the mean square of errors by tiles, over that of the chains of f32.
fn error_by_tiles((rows, outputs, inputs): Shape) -> f64 {
    let x: Vec<f32> = noise(2 * rows * inputs, 7).chunks(2).map(|x| x[0] + x[1] / 500.0).collect();
    let w = noise(outputs * inputs, 8);
    let weights = packed(PackedElements::Bf16, inputs, &w, vec![0x7fc1_7fc1; 7000]);
    let (mut by_tiles, mut by_chains) = (vec![f32::NAN; rows * outputs], vec![0.0; rows * outputs]);
    multiply_in_tiles(rows, &x, &weights, &mut by_tiles);
    multiply_packed(rows, &x, &weights, &mut by_chains);
    let error = |out: &[f32]| {
        let rows = x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| (x, w)));
        let squares = out.iter().zip(rows).map(|(out, (x, w))| {
            let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            (f64::from(*out) - exact).powi(2)
        });
        squares.sum::<f64>().sqrt()
    };
    error(&by_tiles) / error(&by_chains)
}

#[test]
fn tiles_are_as_exact_as_chains() {
    for shape in
        [(1, 33, 40), (16, 32, 64), (33, 40, 7), (70, 100, 1025), (40, 65, 4000), (260, 40, 300)]
    {
        if has_tiles() {
            let error = error_by_tiles(shape);
            assert!(error < 1.2, "{shape:?}: {error}");
        }
    }
}

#[test]
fn tiles_give_a_row_the_same_bits_beside_any_others() {
    let (rows, outputs, inputs) = (300, 300, 130);
    let (x, w) = (noise(rows * inputs, 9), noise(outputs * inputs, 10));
    let weights = packed(PackedElements::Bf16, inputs, &w, Vec::new());
    let run = |x: &[f32], threads: usize| {
        let mut out = vec![0.0; x.len() / inputs * outputs];
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| multiply_in_tiles(x.len() / inputs, x, &weights, &mut out));
        bits(&out)
    };
    if has_tiles() {
        let all = run(&x, 3);
        for rows in [1, 2, 15, 16, 17, 31, 33, 299] {
            assert!(run(&x[..rows * inputs], 1) == all[..rows * outputs], "{rows} rows");
        }
    }
}

#[test]
fn tiles_keep_what_is_no_number() {
    let weights = packed(PackedElements::Bf16, 2, &[1.0, 1.0, 1.0, 0.0], Vec::new());
    let (least, none) = (f32::from_bits(1), f32::from_bits(0x7f80_0001));
    if has_tiles() {
        let mut out = [0.0; 10];
        let x =
            [f32::INFINITY, 1.0, none, 1.0, 1.0, f32::MAX, f32::MIN_POSITIVE, least, 1.0, f32::NAN];
        multiply_in_tiles(5, &x, &weights, &mut out);
        assert!(out[0] == f32::INFINITY && out[2].is_nan() && out[8].is_nan());
        assert_eq!(out[4..8], [f32::MAX, 1.0, f32::MIN_POSITIVE, f32::MIN_POSITIVE]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape(rows in 1_usize..60, outputs in 1_usize..80, inputs in 1_usize..700) {
        check((rows, outputs, inputs));
    }

    #[test]
    fn a_row_does_not_depend_on_the_others(rows in 2_usize..90, outputs in 1_usize..70, inputs in 1_usize..600) {
        let (x, w) = (noise(rows * inputs, 5), noise(outputs * inputs, 6));
        let weights = packed(PackedElements::Bf16, inputs, &w, Vec::new());
        let run = |x: &[f32]| {
            let rows = x.len() / inputs;
            let mut out = vec![0.0; rows * outputs];
            multiply_packed(rows, x, &weights, &mut out);
            bits(&out)
        };
        let all = run(&x);
        for (row, x) in x.chunks(inputs).enumerate() {
            prop_assert_eq!(&run(x)[..], &all[row * outputs..][..outputs]);
        }
    }
}

//! The custom operations against the same thing written with candle's own, forwards and backwards.

use anyhow::Result;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::{log_softmax, silu, softmax};
use nano::draw::Draw;
use nano::kernel::attention::{Heads, Rotary, attention};
use nano::kernel::cross_entropy::cross_entropy;
use nano::kernel::experts::{Routing, experts};
use nano::kernel::linear::linear;
use nano::kernel::rms_norm::rms_norm;
use std::sync::Arc;

const TOKENS: usize = 23;
const WIDTH: usize = 16;

#[test]
fn experts_agree_with_one_product_an_expert() -> Result<()> {
    let (count, inner, choices) = (5, 6, 2);
    let mut draw = Draw::new(1);
    let x = random(&mut draw, &[TOKENS, WIDTH])?;
    let shares = random(&mut draw, &[TOKENS, choices])?;
    let weights = random(&mut draw, &[count, 3, inner, WIDTH])?;
    // The last expert gets nothing.
    let mut chosen = Vec::new();
    for _ in 0..TOKENS {
        let first = draw.number(0, 3);
        chosen.extend([first, (first + draw.number(1, 3)) % 4]);
    }
    let routing = Routing::new(&chosen, choices, count);
    let ours = experts(&x, &shares, &weights, routing)?;

    let mut naive = x.zeros_like()?;
    for expert in 0..count {
        let matrices = weights.get(expert)?;
        let gate = silu(&x.matmul(&matrices.get(0)?.t()?)?)?;
        let hidden = (gate * x.matmul(&matrices.get(1)?.t()?)?)?;
        let out = hidden.matmul(&matrices.get(2)?)?;
        let mask = chosen.iter().map(|&c| f32::from(u8::from(c as usize == expert)));
        let mask = Tensor::from_iter(mask, &Device::Cpu)?.reshape((TOKENS, choices))?;
        let share = (shares.as_tensor() * mask)?.sum_keepdim(1)?;
        naive = (naive + out.broadcast_mul(&share)?)?;
    }
    same_with_gradients(&ours, &naive, &[&x, &shares, &weights])
}

#[test]
fn attention_agrees_with_softmax_of_masked_scores() -> Result<()> {
    let heads = Heads { queries: 4, keys: 2, size: 8 };
    let starts = vec![0, 1, 10, TOKENS];
    let mut draw = Draw::new(2);
    let qkv = random(&mut draw, &[TOKENS, heads.width()])?;
    let rotary = Arc::new(Rotary::new(10_000.0, heads.size, TOKENS));
    let ours = attention(&qkv, heads, rotary, Arc::new(starts.clone()))?;

    let mut sequences = Vec::new();
    for pair in starts.windows(2) {
        let rows = qkv.narrow(0, pair[0], pair[1] - pair[0])?;
        let mut outs = Vec::new();
        for head in 0..heads.queries {
            let of = |index: usize| rows.narrow(1, index * heads.size, heads.size);
            let key = heads.queries + head / 2;
            let (q, k) = (turned(&of(head)?)?, turned(&of(key)?)?);
            let scores = (q.matmul(&k.t()?)? / (heads.size as f64).sqrt())?;
            let scores = scores.broadcast_add(&mask(pair[1] - pair[0])?)?;
            outs.push(softmax(&scores, D::Minus1)?.matmul(&of(key + heads.keys)?.contiguous()?)?);
        }
        sequences.push(Tensor::cat(&outs, 1)?);
    }
    same_with_gradients(&ours, &Tensor::cat(&sequences, 0)?, &[&qkv])
}

#[test]
fn rms_norm_agrees_with_its_definition() -> Result<()> {
    let mut draw = Draw::new(3);
    let x = random(&mut draw, &[TOKENS, WIDTH])?;
    let weight = random(&mut draw, &[WIDTH])?;
    let ours = rms_norm(&x, &weight, 1e-5)?;
    let length = (x.sqr()?.mean_keepdim(1)? + 1e-5)?.sqrt()?;
    let naive = x.broadcast_div(&length)?.broadcast_mul(&weight)?;
    same_with_gradients(&ours, &naive, &[&x, &weight])
}

#[test]
fn linear_agrees_with_a_product() -> Result<()> {
    let mut draw = Draw::new(4);
    let x = random(&mut draw, &[TOKENS, WIDTH])?;
    let weight = random(&mut draw, &[7, WIDTH])?;
    let ours = linear(&x, &weight)?;
    same_with_gradients(&ours, &x.matmul(&weight.t()?)?, &[&x, &weight])
}

#[test]
fn cross_entropy_agrees_with_log_softmax() -> Result<()> {
    // More rows than one block takes.
    let (rows, vocabulary) = (150, 11);
    let mut draw = Draw::new(5);
    let hidden = random(&mut draw, &[rows, WIDTH])?;
    let head = random(&mut draw, &[vocabulary, WIDTH])?;
    let targets: Vec<u32> = (0..rows).map(|_| draw.below(vocabulary) as u32).collect();
    let ours = cross_entropy(&hidden, &head, targets.clone())?;
    let logarithms = log_softmax(&hidden.matmul(&head.t()?)?, 1)?;
    let targets = Tensor::from_vec(targets, (rows, 1), &Device::Cpu)?;
    let naive = logarithms.gather(&targets, 1)?.mean_all()?.neg()?;
    same_with_gradients(&ours, &naive, &[&hidden, &head])
}

fn random(draw: &mut Draw, shape: &[usize]) -> Result<Var> {
    let values = draw.normal(shape.iter().product(), 1.0);
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?)
}

/// Compares values, and the gradients of the sum of the squares of `ours` and `naive`.
fn same_with_gradients(ours: &Tensor, naive: &Tensor, vars: &[&Var]) -> Result<()> {
    close(ours, naive)?;
    let (one, two) = (ours.sqr()?.backward()?, naive.sqr()?.backward()?);
    for var in vars {
        let (one, two) = (one.get(var), two.get(var));
        close(one.expect("a gradient"), two.expect("a gradient"))?;
    }
    Ok(())
}

fn close(one: &Tensor, two: &Tensor) -> Result<()> {
    assert_eq!(one.dims(), two.dims());
    let size = two.abs()?.max_all()?.to_scalar::<f32>()?;
    let gap = (one - two)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(gap <= 1e-5 * size.max(1.0), "{gap} apart, at most {size}");
    Ok(())
}

/// Rotary positions by the textbook: each pair of halves turned by its angle.
fn turned(x: &Tensor) -> Result<Tensor> {
    let (rows, size) = x.dims2()?;
    let half = size / 2;
    let angle =
        |row: usize, pair: usize| row as f32 * 10_000f32.powf(-(2.0 * pair as f32) / size as f32);
    let angles = (0..rows).flat_map(|row| (0..half).map(move |pair| angle(row, pair)));
    let angles = Tensor::from_iter(angles, &Device::Cpu)?.reshape((rows, half))?;
    let (low, high) = (x.narrow(1, 0, half)?, x.narrow(1, half, half)?);
    let (cosine, sine) = (angles.cos()?, angles.sin()?);
    let first = ((&low * &cosine)? - (&high * &sine)?)?;
    let second = ((high * cosine)? + (low * sine)?)?;
    Ok(Tensor::cat(&[first, second], 1)?)
}

fn mask(len: usize) -> Result<Tensor> {
    let values = (0..len * len).map(|at| {
        let (row, column) = (at / len, at % len);
        if column > row { f32::NEG_INFINITY } else { 0.0 }
    });
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((len, len))?)
}

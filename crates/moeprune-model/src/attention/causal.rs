//! From queries, keys and values to the output of attention, for every kind that has them.

use candle_core::{Device, Tensor};
use moeprune_core::QueryTemperature;

use super::{device, heads::Heads, host};
use crate::{
    Error,
    cache::SequenceCache,
    ops::{self, is_host},
    rotary::Rotary,
};

/// `qkv` holds queries, keys and values of `lens[i]` tokens of sequence `i`, one sequence after the
/// other, `[tokens, row_width]`; each continues what its cache holds, and is added to it. Returns
/// `[tokens, output_width]`. Queries and keys are turned here.
pub(super) fn attend(
    heads: Heads<'_>,
    qkv: &Tensor,
    lens: &[usize],
    caches: &mut [SequenceCache],
    rotary: &Rotary,
) -> Result<Tensor, Error> {
    let last = caches.iter().zip(lens).map(|(c, len)| c.next() + len).max().unwrap_or(0);
    let table = rotary.table(last);
    if !is_host(qkv) {
        return device::attend(heads, qkv, lens, caches, &table);
    }
    let mixed = ops::with_slice(qkv, |qkv| host::attend(heads, qkv, lens, caches, &table))?;
    Ok(Tensor::from_vec(mixed, (qkv.dim(0)?, heads.output_width()), &Device::Cpu)?)
}

/// Turns the queries and keys of such rows, whose sequences stand where their caches end.
pub(super) fn turn(
    heads: Heads<'_>,
    qkv: &Tensor,
    lens: &[usize],
    caches: &[SequenceCache],
    rotary: &Rotary,
) -> Result<Tensor, Error> {
    let (mut first, mut rows) = (0, Vec::with_capacity(lens.len()));
    for (cache, &len) in caches.iter().zip(lens) {
        let table = rotary.table(cache.next() + len);
        let own = qkv.narrow(0, first, len)?;
        let turned = |start: usize, width: usize| {
            let by_head =
                own.narrow(1, start, width)?.reshape((1, len, width / heads.dim, heads.dim))?;
            let by_head = by_head.transpose(1, 2)?.contiguous()?;
            let turned = device::turned(&by_head, &table, cache.next())?;
            Ok::<_, Error>(turned.transpose(1, 2)?.reshape((len, width))?)
        };
        let (query, key) = (heads.query_width(), heads.key_width());
        let values = own.narrow(1, query + key, heads.value_width())?;
        rows.push(Tensor::cat(&[turned(0, query)?, turned(query, key)?, values], 1)?);
        first += len;
    }
    Ok(Tensor::cat(&rows, 0)?)
}

/// The same rows with queries multiplied as their positions say.
pub(super) fn warmed(
    heads: Heads<'_>,
    qkv: &Tensor,
    lens: &[usize],
    caches: &[SequenceCache],
    temperature: &QueryTemperature,
) -> Result<Tensor, Error> {
    let positions = |(cache, &len): (&SequenceCache, &usize)| cache.next()..cache.next() + len;
    let positions = caches.iter().zip(lens).flat_map(positions);
    let factors: Vec<f64> = positions.map(|position| temperature.at(position)).collect();
    let factors = Tensor::from_vec(factors, (qkv.dim(0)?, 1), qkv.device())?;
    let query = heads.query_width();
    let queries = qkv.narrow(1, 0, query)?.broadcast_mul(&factors.to_dtype(qkv.dtype())?)?;
    let rest = qkv.narrow(1, query, heads.row_width() - query)?;
    Ok(Tensor::cat(&[&queries, &rest], 1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use moeprune_core::{Reach, RotarySpec, RotaryStyle};

    use super::*;

    fn noise(len: usize) -> Vec<f32> {
        let mut state = 17_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 4_194_304.0 - 2.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// One query head at a time, from the formula, in f64.
    fn by_definition(heads: Heads<'_>, qkv: &[f32], rotary: &Rotary, first: usize) -> Vec<f64> {
        let tokens = qkv.len() / heads.row_width();
        let table = rotary.table(first + tokens);
        let row = |t: usize, offset: usize| &qkv[t * heads.row_width() + offset..];
        let head = |t: usize, offset: usize| {
            let mut turned = vec![0.0; heads.dim];
            table.rotate(first + t, &row(t, offset)[..heads.dim], &mut turned);
            turned.into_iter().map(f64::from).collect::<Vec<_>>()
        };
        let values = heads.query_width() + heads.key_width();
        let mut out = Vec::new();
        for t in 0..tokens {
            for h in 0..heads.kv_heads * heads.group {
                let kv = h / heads.group;
                let query = head(t, h * heads.dim);
                let seen = heads.first_visible(first, t)..t + 1;
                let score = |s: usize| {
                    let key = head(s, heads.query_width() + kv * heads.dim);
                    let dot: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                    (heads.factor * dot / (heads.dim as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = seen.clone().map(score).collect();
                let sink = heads.sinks.map_or(0.0, |sinks| f64::from(sinks[h]).exp());
                let total: f64 = scores.iter().sum::<f64>() + sink;
                let mut mixed = vec![0.0; heads.value_dim];
                for (s, p) in seen.zip(scores) {
                    let value = row(s, values + kv * heads.value_dim);
                    for (m, v) in mixed.iter_mut().zip(value) {
                        *m += p / total * f64::from(*v);
                    }
                }
                out.extend(mixed);
            }
        }
        out
    }

    fn check(kv_heads: usize, group: usize, reach: Reach, tokens: usize, calls: &[usize]) {
        let heads =
            Heads { kv_heads, group, dim: 8, value_dim: 8, reach, factor: 1.0, sinks: None };
        check_heads(heads, &RotarySpec::plain(100.0, 8), tokens, calls);
    }

    fn check_heads(heads: Heads<'_>, rotary: &RotarySpec, tokens: usize, calls: &[usize]) {
        let rotary = Rotary::new(Some(rotary));
        let qkv = noise(tokens * heads.row_width());
        let first = 3;
        let want = by_definition(heads, &qkv, &rotary, first);
        let table = rotary.table(first + tokens);
        let mut host_caches = [SequenceCache::starting_at(first)];
        let mut device_caches = [SequenceCache::starting_at(first)];
        let (mut on_host, mut on_device) = (Vec::new(), Vec::new());
        let mut start = 0;
        for &len in calls {
            let rows = &qkv[start * heads.row_width()..][..len * heads.row_width()];
            on_host.extend(host::attend(heads, rows, &[len], &mut host_caches, &table));
            let rows = Tensor::from_slice(rows, (len, heads.row_width()), &Device::Cpu).unwrap();
            let rows = rows.to_dtype(DType::F64).unwrap();
            let mixed = device::attend(heads, &rows, &[len], &mut device_caches, &table).unwrap();
            on_device.extend(ops::to_vec(&mixed).unwrap());
            start += len;
        }
        assert_eq!(start, tokens);
        assert_eq!((host_caches[0].len, device_caches[0].len), (tokens, tokens));
        for (name, got) in [("host", on_host), ("device", on_device)] {
            assert_eq!(got.len(), want.len());
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((f64::from(*g) - w).abs() < 2e-5, "{name} {i}: {g} {w}");
            }
        }
    }

    #[test]
    fn equals_the_definition() {
        check(1, 1, Reach::Everything, 1, &[1]);
        check(1, 1, Reach::Everything, 5, &[5]);
        check(2, 3, Reach::Everything, 7, &[7]);
        // More than one block of queries.
        check(2, 2, Reach::Everything, 150, &[150]);
        // On devices too, and the last one not full.
        check(1, 2, Reach::Everything, 1100, &[1100]);
    }

    #[test]
    fn equals_the_definition_with_a_cache() {
        check(2, 2, Reach::Everything, 6, &[1, 1, 1, 1, 1, 1]);
        check(1, 4, Reach::Everything, 100, &[90, 1, 9]);
        check(3, 1, Reach::Everything, 9, &[4, 5]);
    }

    #[test]
    fn equals_the_definition_with_other_values() {
        let plain = RotarySpec::plain(100.0, 4);
        let pairs = RotarySpec { style: RotaryStyle::Pair, ..RotarySpec::plain(100.0, 6) };
        for (value_dim, factor) in [(5, 1.0), (11, 1.7)] {
            let heads = Heads {
                kv_heads: 3,
                group: 1,
                dim: 8,
                value_dim,
                reach: Reach::Everything,
                factor,
                sinks: None,
            };
            check_heads(heads, &plain, 9, &[9]);
            check_heads(heads, &pairs, 80, &[70, 1, 9]);
        }
    }

    #[test]
    fn equals_the_definition_with_sinks() {
        let sinks = [0.5, -2.0, 3.0, 40.0];
        for reach in [Reach::Everything, Reach::Window(3), Reach::Chunk(4)] {
            let (sinks, factor) = (Some(&sinks[..]), 0.7);
            let heads = Heads { kv_heads: 2, group: 2, dim: 8, value_dim: 8, reach, factor, sinks };
            check_heads(heads, &RotarySpec::plain(100.0, 8), 9, &[9]);
            check_heads(heads, &RotarySpec::plain(100.0, 8), 80, &[70, 1, 9]);
        }
    }

    #[test]
    fn turned_before_is_turned_within() {
        let heads = Heads {
            kv_heads: 2,
            group: 2,
            dim: 8,
            value_dim: 8,
            reach: Reach::Everything,
            factor: 1.0,
            sinks: None,
        };
        let (rotary, still) = (Rotary::new(Some(&RotarySpec::plain(100.0, 6))), Rotary::new(None));
        let qkv = noise(7 * heads.row_width());
        for dtype in [DType::F32, DType::F64] {
            let qkv = Tensor::from_slice(&qkv, (7, heads.row_width()), &Device::Cpu).unwrap();
            let qkv = qkv.to_dtype(dtype).unwrap();
            let caches = || [SequenceCache::starting_at(0), SequenceCache::starting_at(5)];
            let within = attend(heads, &qkv, &[4, 3], &mut caches(), &rotary).unwrap();
            let turned = turn(heads, &qkv, &[4, 3], &caches(), &rotary).unwrap();
            let before = attend(heads, &turned, &[4, 3], &mut caches(), &still).unwrap();
            let (within, before) = (ops::to_vec(&within).unwrap(), ops::to_vec(&before).unwrap());
            let far = within.iter().zip(&before).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5, "{far}");
        }
    }

    #[test]
    fn equals_the_definition_with_a_window() {
        check(2, 2, Reach::Window(1), 5, &[5]);
        check(2, 2, Reach::Window(3), 150, &[150]);
        check(1, 2, Reach::Window(70), 150, &[100, 1, 49]);
        check(2, 1, Reach::Window(300), 1100, &[700, 400]);
        check(1, 2, Reach::Window(1000), 20, &[20]);
    }

    /// Chunks are of positions: the first token stands at position 3.
    #[test]
    fn equals_the_definition_with_chunks() {
        check(2, 2, Reach::Chunk(1), 5, &[5]);
        check(2, 2, Reach::Chunk(4), 11, &[11]);
        check(1, 2, Reach::Chunk(4), 11, &[2, 1, 1, 5, 1, 1]);
        check(2, 1, Reach::Chunk(100), 1100, &[700, 1, 399]);
        let heads = Heads {
            kv_heads: 1,
            group: 1,
            dim: 2,
            value_dim: 2,
            reach: Reach::Chunk(4),
            factor: 1.0,
            sinks: None,
        };
        let seen: Vec<_> = (0..7).map(|query| heads.first_visible(3, query)).collect();
        assert_eq!(seen, [0, 1, 1, 1, 1, 5, 5]);
    }
}

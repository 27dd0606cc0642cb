//! Attention on slices: keys and values as they are cached, a block of queries at a time, and
//! only over keys a query may see, so that no mask and no score of a hidden key ever exists.

use rayon::prelude::*;

use super::heads::Heads;
use crate::{
    cache::{HeadCache, SequenceCache, Store},
    exponential::exponentiate_beside,
    product::{Rows, is_parallel, product_here},
    rotary::RotaryTable,
};

/// Queries scored together: bounds the scores held to this many rows per query head.
const BLOCK: usize = 64;

/// Queries of one block and key-value head.
struct Task {
    sequence: usize,
    kv_head: usize,
    /// Rows of the batch.
    rows: std::ops::Range<usize>,
    /// Keys of this sequence before the first of the rows.
    seen: usize,
}

/// `qkv` is `[tokens, row_width]`; returns `[tokens, output_width]`. Caches grow by `lens`.
pub(super) fn attend(
    heads: Heads<'_>,
    qkv: &[f32],
    lens: &[usize],
    caches: &mut [SequenceCache],
    table: &RotaryTable,
) -> Vec<f32> {
    let mut tasks = Vec::new();
    let mut work = 0;
    let mut first = 0;
    for (sequence, (cache, &len)) in caches.iter_mut().zip(lens).enumerate() {
        let before = cache.len;
        append(heads, &qkv[first * heads.row_width()..][..len * heads.row_width()], cache, table);
        for start in (0..len).step_by(BLOCK) {
            let end = len.min(start + BLOCK);
            for kv_head in 0..heads.kv_heads {
                let (rows, seen) = (first + start..first + end, before + start);
                work += 2 * rows.len() * (before + end) * heads.dim * heads.group;
                tasks.push(Task { sequence, kv_head, rows, seen });
            }
        }
        first += len;
    }
    let run = |task: &Task| block(heads, qkv, task, &caches[task.sequence], table);
    let blocks: Vec<Vec<f32>> = if is_parallel(work) {
        tasks.par_iter().map(run).collect()
    } else {
        tasks.iter().map(run).collect()
    };
    let width = heads.group * heads.value_dim;
    let mut mixed = vec![0.0; first * heads.output_width()];
    for (task, block) in tasks.iter().zip(blocks) {
        for (row, values) in task.rows.clone().zip(block.chunks_exact(width)) {
            let start = row * heads.output_width() + task.kv_head * width;
            mixed[start..start + width].copy_from_slice(values);
        }
    }
    mixed
}

/// Adds the keys and values of a sequence's new tokens to its cache.
fn append(heads: Heads<'_>, qkv: &[f32], cache: &mut SequenceCache, table: &RotaryTable) {
    let (position, len, new) = (cache.next(), cache.len, qkv.len() / heads.row_width());
    if !matches!(cache.store, Store::Host(_)) {
        cache.store = Store::Host((0..heads.kv_heads).map(|_| HeadCache::default()).collect());
    }
    let Store::Host(stores) = &mut cache.store else { return };
    let mut key = vec![0.0; heads.dim];
    for (kv_head, store) in stores.iter_mut().enumerate() {
        store.reserve((heads.dim, heads.value_dim), len, len + new);
        for (t, row) in qkv.chunks_exact(heads.row_width()).enumerate() {
            let at = heads.query_width() + kv_head * heads.dim;
            table.rotate(position + t, &row[at..at + heads.dim], &mut key);
            for (d, k) in key.iter().enumerate() {
                store.keys[d * store.capacity + len + t] = *k;
            }
            let at = heads.query_width() + heads.key_width() + kv_head * heads.value_dim;
            store.values.extend_from_slice(&row[at..at + heads.value_dim]);
        }
    }
    cache.len += new;
}

/// The outputs of a block: for each of its rows the group's heads, `group · value_dim`.
fn block(
    heads: Heads<'_>,
    qkv: &[f32],
    task: &Task,
    cache: &SequenceCache,
    table: &RotaryTable,
) -> Vec<f32> {
    let Store::Host(stores) = &cache.store else { return Vec::new() };
    let store = &stores[task.kv_head];
    let (dim, value_dim, group) = (heads.dim, heads.value_dim, heads.group);
    let queries = task.rows.len();
    let mut query = vec![0.0; queries * group * dim];
    for (t, row) in task.rows.clone().enumerate() {
        let at = row * heads.row_width() + task.kv_head * group * dim;
        let turned = &mut query[t * group * dim..][..group * dim];
        for (head, turned) in qkv[at..].chunks_exact(dim).zip(turned.chunks_exact_mut(dim)) {
            table.rotate(cache.first + task.seen + t, head, turned);
        }
    }
    let keys = heads.first_visible(cache.first, task.seen)..task.seen + queries;
    let all = keys.len();
    let visible_keys = Rows { values: &store.keys[keys.start..], stride: store.capacity };
    let rows = queries * group;
    let mut scores = product_here(rows, all, dim, Rows::dense(&query, dim), visible_keys);
    let scale = 1.0 / (dim as f32).sqrt() * heads.factor as f32;
    let mut totals = Vec::with_capacity(rows);
    for (r, row) in scores.chunks_exact_mut(all).enumerate() {
        let at = task.seen + r / group;
        let first = heads.first_visible(cache.first, at) - keys.start;
        let end = at + 1 - keys.start;
        row[..first].fill(0.0);
        row[end..].fill(0.0);
        let sink = heads.sinks.map(|sinks| sinks[task.kv_head * group + r % group]);
        let hide = |row: &mut [f32], value: f32| {
            if let Some(selected) = &cache.selected {
                selected.hide(at, keys.start + first..at + 1, row, value);
            }
        };
        let visible = &mut row[first..end];
        hide(visible, f32::NEG_INFINITY);
        totals.push(exponentiate_beside(visible, scale, sink));
        hide(visible, 0.0);
    }
    let values = &store.values[keys.start * value_dim..keys.end * value_dim];
    let values = Rows::dense(values, value_dim);
    let mut mixed = product_here(rows, value_dim, all, Rows::dense(&scores, all), values);
    for (row, total) in mixed.chunks_exact_mut(value_dim).zip(totals) {
        for m in row {
            *m /= total;
        }
    }
    mixed
}

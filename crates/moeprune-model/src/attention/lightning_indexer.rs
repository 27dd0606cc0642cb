//! The lightning indexer, which selects the keys that latent attention sees.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use moeprune_core::{LayerTensor, LightningIndexer, TensorId};

use super::device;
use crate::{
    Error,
    cache::SequenceCache,
    linear::{Linear, Weights},
    norm::RmsNorm,
    ops::{is_host, to_vec, wide, with_slice},
    product::{Rows, product},
    rotary::Rotary,
    selected_keys::SelectedKeys,
};

/// Queries whose scores exist at once, of all heads.
const BLOCK: usize = 64;

/// An indexer that a layer has.
#[derive(Debug)]
pub(super) struct Indexer {
    shape: LightningIndexer,
    query: Linear,
    key: Linear,
    weights: Linear,
    key_norm: RmsNorm,
    rotary: Rotary,
}

/// Which keys the queries of a layer see.
#[derive(Debug)]
pub(super) enum KeySelection {
    /// All at or before them.
    All,
    /// Those that the layer's own indexer selects.
    Own(Box<Indexer>),
    /// Those that the layer before it sees, so many at most.
    TakenOver { layer: usize, top_k: usize },
}

/// What an indexer reads of the new tokens of a sequence.
#[derive(Clone, Copy)]
pub(super) struct IndexerInput<'a> {
    /// `[tokens, hidden]`
    pub(super) x: &'a Tensor,
    /// The queries' latent, `[tokens, query_rank]`.
    pub(super) latent: &'a Tensor,
}

impl IndexerInput<'_> {
    /// The same from a token on.
    fn rows(self, first: usize, count: usize) -> Result<(Tensor, Tensor), Error> {
        Ok((self.x.narrow(0, first, count)?, self.latent.narrow(0, first, count)?))
    }
}

impl KeySelection {
    /// Notes in each cache which keys the new tokens of its sequence see. `latent` is that of the queries,
    /// which every layer has that has an indexer.
    pub(super) fn select(
        &self,
        x: &Tensor,
        latent: Option<&Tensor>,
        lens: &[usize],
        caches: &mut [SequenceCache],
    ) -> Result<(), Error> {
        match (self, latent) {
            (Self::Own(indexer), Some(latent)) => {
                indexer.select(IndexerInput { x, latent }, lens, caches)
            }
            (Self::All | Self::Own(_), _) => Ok(()),
            (&Self::TakenOver { layer, top_k }, _) => {
                for (cache, len) in caches.iter_mut().zip(lens) {
                    let keys = cache.len + len;
                    let taken = cache.selected.take().filter(|taken| taken.keys() == keys);
                    if keys > top_k && taken.is_none() {
                        return Err(Error::NoSelection { layer, top_k, keys });
                    }
                    cache.selected = taken;
                }
                Ok(())
            }
        }
    }
}

impl Indexer {
    /// `widths` are those of the residual stream and of the queries' latent.
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        widths: (usize, usize),
        shape: &LightningIndexer,
    ) -> Result<Self, Error> {
        let (hidden, query_rank) = widths;
        let id = |tensor: LayerTensor| TensorId::Layer(layer, tensor);
        let linear = |tensor, rows, cols| weights.linear(&[(id(tensor), rows)], cols);
        let (weight, bias) = (LightningIndexer::KEY_NORM, LightningIndexer::KEY_NORM_BIAS);
        Ok(Self {
            query: linear(LightningIndexer::QUERY, shape.heads * shape.dim, query_rank)?,
            key: linear(LightningIndexer::KEY, shape.dim, hidden)?,
            weights: linear(LightningIndexer::WEIGHTS, shape.heads, hidden)?,
            key_norm: RmsNorm::load(weights, id(weight), shape.dim, LightningIndexer::NORM_EPS)?
                .with_bias(weights, id(bias), shape.dim)?,
            rotary: Rotary::new(shape.rotary.as_ref()),
            shape: shape.clone(),
        })
    }

    /// Notes in each cache which keys the new tokens of its sequence see.
    pub(super) fn select(
        &self,
        input: IndexerInput<'_>,
        lens: &[usize],
        caches: &mut [SequenceCache],
    ) -> Result<(), Error> {
        let mut first = 0;
        for (cache, &len) in caches.iter_mut().zip(lens) {
            let (x, latent) = input.rows(first, len)?;
            first += len;
            let selects = cache.len + len > self.shape.top_k;
            cache.selected = None;
            if selects || !cache.ends {
                let keys = self.keys(&x, cache)?;
                cache.indexer_keys = Some(keys.clone());
                if selects {
                    let input = IndexerInput { x: &x, latent: &latent };
                    cache.selected = Some(Arc::new(self.selected(input, &keys, cache)?));
                }
            }
        }
        Ok(())
    }

    /// The keys of all tokens of a sequence, `[positions, dim]`, in f32 or wider.
    fn keys(&self, x: &Tensor, cache: &SequenceCache) -> Result<Tensor, Error> {
        let (len, dim) = (x.dim(0)?, self.shape.dim);
        let keys = self.key_norm.forward(&self.key.forward(x)?)?;
        let keys = keys.to_dtype(wide(keys.dtype()))?.reshape((1, 1, len, dim))?;
        let table = self.rotary.table(cache.next() + len);
        let keys = device::turned(&keys, &table, cache.next())?.reshape((len, dim))?;
        match &cache.indexer_keys {
            Some(earlier) => Ok(Tensor::cat(&[earlier, &keys], 0)?),
            None => Ok(keys),
        }
    }

    /// The best keys of each new token that has more at or before it than are selected.
    fn selected(
        &self,
        input: IndexerInput<'_>,
        keys: &Tensor,
        cache: &SequenceCache,
    ) -> Result<SelectedKeys, Error> {
        let (len, top_k, all) = (input.x.dim(0)?, self.shape.top_k, keys.dim(0)?);
        let start = top_k.saturating_sub(cache.len);
        let transposed = keys.t()?.contiguous()?;
        let mut selected = SelectedKeys::none(cache.len + start, all);
        for first in (start..len).step_by(BLOCK) {
            let count = BLOCK.min(len - first);
            let (x, latent) = input.rows(first, count)?;
            let queries = self.queries(&latent, cache.next() + first)?;
            let weights = self.weights.forward(&x)?.to_dtype(keys.dtype())?;
            let scores = to_vec(&self.scores(&queries, &transposed, &weights)?)?;
            for (t, row) in scores.chunks_exact(all).enumerate() {
                let query = cache.len + first + t;
                for key in best(&row[..=query], top_k) {
                    selected.insert(query, key);
                }
            }
        }
        Ok(selected)
    }

    /// The heads of queries of which the first stands at position `start`, `[tokens · heads, dim]`.
    fn queries(&self, latent: &Tensor, start: usize) -> Result<Tensor, Error> {
        let LightningIndexer { heads, dim, .. } = self.shape;
        let len = latent.dim(0)?;
        let queries = self.query.forward(latent)?;
        let queries = queries.to_dtype(wide(queries.dtype()))?.reshape((1, len, heads, dim))?;
        let by_head = queries.transpose(1, 2)?.contiguous()?;
        let turned = device::turned(&by_head, &self.rotary.table(start + len), start)?;
        Ok(turned.transpose(1, 2)?.reshape((len * heads, dim))?)
    }

    /// Scores `[tokens, keys]`, up to a positive factor, which does not change their order.
    fn scores(&self, queries: &Tensor, keys: &Tensor, weights: &Tensor) -> Result<Tensor, Error> {
        let (heads, all) = (self.shape.heads, keys.dim(1)?);
        let by_head = times(queries, keys)?.relu()?.reshape(((), heads, all))?;
        Ok(by_head.broadcast_mul(&weights.unsqueeze(2)?)?.sum(1)?)
    }
}

/// `a · b`, in which on the CPU in f32 no row's bits depend on the others.
fn times(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    if !is_host(a) {
        return Ok(a.matmul(b)?);
    }
    let ((m, k), n) = (a.dims2()?, b.dim(1)?);
    let values = with_slice(a, |a| {
        with_slice(b, |b| product(m, n, k, Rows::dense(a, k), Rows::dense(b, n)))
    })??;
    Ok(Tensor::from_vec(values, (m, n), &Device::Cpu)?)
}

/// The places of the `count` largest scores, of equal ones the first.
fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if count < order.len() {
        // Adding zero takes the sign off a zero.
        let descending =
            |a: &usize, b: &usize| (scores[*b] + 0.0).total_cmp(&(scores[*a] + 0.0)).then(a.cmp(b));
        order.select_nth_unstable_by(count, descending);
        order.truncate(count);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_best() {
        let check = |scores: &[f32], count, expected: &[usize]| {
            let mut places = best(scores, count);
            places.sort_unstable();
            assert_eq!(places, expected, "{scores:?}");
        };
        check(&[1.0, 3.0, 2.0], 2, &[1, 2]);
        check(&[1.0, 3.0], 2, &[0, 1]);
        check(&[1.0], 2, &[0]);
        // Equal ones: the first.
        check(&[-0.0, 0.0, 0.0, 1.0, -0.0], 3, &[0, 1, 3]);
        check(&[0.0, -0.0, 0.0, -1.0], 2, &[0, 1]);
        check(&[f32::NAN, 2.0, 1.0], 1, &[0]);
    }
}

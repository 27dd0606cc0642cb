//! Which inputs of a Linear come together.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use moeprune_core::{InputHessian, LinearId};

/// The sum of `x xᵀ` of each input site that a token reached, `[features, features]` in f32.
///
/// One of these is as large as `features²` floats, so the sites of an expert are
/// [forgotten](Self::forget) when it is done with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hessians {
    sites: BTreeMap<LinearId, InputHessian>,
}

impl Hessians {
    /// Adds the rows of `[tokens, features]`; `calls` blocks have reached the site by now. Of the products, each token block's are summed in f32
    /// by one matrix product.
    pub(crate) fn add(&mut self, site: LinearId, input: &Tensor, calls: u64) -> Result<()> {
        let (tokens, features) = input.dims2()?;
        let x = input.to_dtype(DType::F32)?;
        let products = x.t()?.matmul(&x)?.to_device(&Device::Cpu)?.flatten_all()?;
        let products = products.to_vec1::<f32>()?;
        let hessian = self.sites.entry(site).or_insert_with(|| InputHessian {
            tokens: 0,
            calls: 0,
            features,
            sums: vec![0.0; features * features],
        });
        hessian.tokens += tokens as u64;
        hessian.calls = calls;
        for (sum, product) in hessian.sums.iter_mut().zip(products) {
            *sum += product;
        }
        Ok(())
    }

    /// The sums of a site, if a token reached it.
    pub(crate) fn of(&self, site: LinearId) -> Option<&InputHessian> {
        self.sites.get(&site)
    }

    /// Drops the sums of sites that are not wanted any more.
    pub(crate) fn forget(&mut self, done: impl Fn(LinearId) -> bool) {
        self.sites.retain(|&site, _| !done(site));
    }
}

#[cfg(test)]
mod tests {
    use moeprune_core::MlpProjection;

    use super::*;

    #[test]
    fn products_are_summed_and_forgotten() {
        let site = LinearId::Expert(1, MlpProjection::Gate);
        let mut hessians = Hessians::default();
        let calls = [[[1.0_f32, 0.0], [2.0, 1.0]], [[0.0, 3.0], [0.0, 0.0]]];
        for (call, rows) in (1..).zip(calls) {
            hessians.add(site, &Tensor::new(&rows, &Device::Cpu).unwrap(), call).unwrap();
        }
        let seen = hessians.of(site).unwrap();
        assert_eq!((seen.tokens, seen.calls, seen.features), (4, 2, 2));
        assert_eq!(seen.sums, [5.0, 2.0, 2.0, 10.0]);
        hessians.forget(|site| site.expert() == Some(1));
        assert!(hessians.of(site).is_none());
    }
}

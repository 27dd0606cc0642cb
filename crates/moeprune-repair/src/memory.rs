//! A store of experts that are in memory.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use moeprune_core::{Dtype, RepairStore, StageError, TensorBytes};
use moeprune_linalg::Real;

use crate::Store;

/// Experts in memory, for tests and for models that are small.
///
/// New weights are rounded to the type that they are stored in; without one they stay as they are.
///
/// ```
/// use moeprune_core::{Dtype, RepairStore};
/// use moeprune_repair::{InMemoryStore, MemoryExpert};
///
/// let expert = MemoryExpert { activations: vec![1.0, 2.0], weights: vec![0.5, 1.0], features: 2 };
/// let store = InMemoryStore::new(vec![expert]).stored_as(Dtype::BF16);
/// assert_eq!(store.replace(0, vec![1.001_f32, 1.0]).unwrap(), [1.0, 1.0]);
/// assert_eq!(RepairStore::original_weights(&store, 0).unwrap(), [0.5, 1.0]);
/// ```
#[derive(Debug)]
pub struct InMemoryStore<T> {
    experts: Vec<MemoryExpert<T>>,
    stored_as: Option<Dtype>,
    now: Mutex<Vec<Now<T>>>,
}

/// An expert of an [`InMemoryStore`].
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryExpert<T> {
    /// Gated hidden activations, `[tokens, features]`, row-major.
    pub activations: Vec<T>,
    /// Weights, `[width, features]`, row-major.
    pub weights: Vec<T>,
    /// Columns of both.
    pub features: usize,
}

#[derive(Debug)]
struct Now<T> {
    weights: Vec<T>,
    kept: Option<Vec<f64>>,
}

impl<T: Real> InMemoryStore<T> {
    /// Of experts in the order in which the layer has them.
    #[must_use]
    pub fn new(experts: Vec<MemoryExpert<T>>) -> Self {
        let now = experts.iter().map(|e| Now { weights: e.weights.clone(), kept: None }).collect();
        Self { experts, stored_as: None, now: Mutex::new(now) }
    }

    /// The same, with new weights rounded to a type of weights.
    #[must_use]
    pub fn stored_as(self, dtype: Dtype) -> Self {
        Self { stored_as: Some(dtype), ..self }
    }

    /// Its experts with the weights that they have now.
    #[must_use]
    pub fn into_weights(self) -> Vec<Vec<T>> {
        let now = self.now.into_inner().unwrap_or_else(PoisonError::into_inner);
        now.into_iter().map(|expert| expert.weights).collect()
    }

    fn expert(&self, expert: usize) -> Result<&MemoryExpert<T>, StageError> {
        let all = self.experts.len();
        self.experts.get(expert).ok_or_else(|| format!("no expert {expert} of {all}").into())
    }

    /// Every change is one assignment, so a panic elsewhere leaves nothing half done.
    fn now(&self) -> MutexGuard<'_, Vec<Now<T>>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rounded(&self, weights: Vec<T>, features: usize) -> Result<Vec<T>, StageError> {
        let Some(dtype) = self.stored_as else { return Ok(weights) };
        let single: Vec<f32> = weights.iter().map(|w| w.to_f64() as f32).collect();
        let rows = single.len() / features.max(1);
        let stored = TensorBytes::encode(dtype, [rows, features], &single)?.to_f32()?;
        if let Some(at) = stored.iter().position(|w| !w.is_finite()) {
            return Err(format!("{dtype} cannot hold the weight {}", single[at]).into());
        }
        Ok(stored.into_iter().map(|w| T::from_f64(w.into())).collect())
    }
}

impl<T: Real> Store<T> for InMemoryStore<T> {
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<T>, StageError> {
        let expert = self.expert(expert)?;
        let values = rows.start * expert.features..rows.end * expert.features;
        let all = expert.activations.len();
        let values = expert.activations.get(values.clone());
        Ok(values.ok_or_else(|| format!("no rows {rows:?} in {all} activations"))?.to_vec())
    }

    fn weights(&self, expert: usize) -> Result<Vec<T>, StageError> {
        self.expert(expert)?;
        Ok(self.now()[expert].weights.clone())
    }

    fn original_weights(&self, expert: usize) -> Result<Vec<T>, StageError> {
        Ok(self.expert(expert)?.weights.clone())
    }

    fn replace(&self, expert: usize, weights: Vec<T>) -> Result<Vec<T>, StageError> {
        let MemoryExpert { weights: old, features, .. } = self.expert(expert)?;
        if weights.len() != old.len() {
            let (expected, got) = (old.len(), weights.len());
            return Err(format!("expected {expected} new weights, got {got}").into());
        }
        let weights = self.rounded(weights, *features)?;
        self.now()[expert].weights.clone_from(&weights);
        Ok(weights)
    }

    fn keep(&self, expert: usize, numbers: &[f64]) -> Result<(), StageError> {
        self.expert(expert)?;
        self.now()[expert].kept = Some(numbers.to_vec());
        Ok(())
    }

    fn kept(&self, expert: usize) -> Result<Option<Vec<f64>>, StageError> {
        self.expert(expert)?;
        Ok(self.now()[expert].kept.clone())
    }
}

impl RepairStore for InMemoryStore<f32> {
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f32>, StageError> {
        Store::activations(self, expert, rows)
    }

    fn weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        Store::weights(self, expert)
    }

    fn original_weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        Store::original_weights(self, expert)
    }

    fn replace(&self, expert: usize, weights: Vec<f32>) -> Result<Vec<f32>, StageError> {
        Store::replace(self, expert, weights)
    }

    fn keep(&self, expert: usize, numbers: &[f64]) -> Result<(), StageError> {
        Store::keep(self, expert, numbers)
    }

    fn kept(&self, expert: usize) -> Result<Option<Vec<f64>>, StageError> {
        Store::kept(self, expert)
    }
}

/*!
Repairs a mixture-of-experts layer that lost experts: the ones that stay are refitted, without training.
*/

mod error;
mod expert;
mod guard;
mod layer;
mod memory;
mod refit;
mod residual;
mod ridge;
mod support;
mod sweeps;
mod system;

pub use error::Error;
pub use layer::{Layer, Store};
pub use memory::{InMemoryStore, MemoryExpert};
pub use refit::Refit;
pub use ridge::Ridge;

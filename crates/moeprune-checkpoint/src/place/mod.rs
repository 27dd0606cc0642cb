//! Where a part is: which bytes of which tensor.

mod separate;

pub use self::separate::Place;

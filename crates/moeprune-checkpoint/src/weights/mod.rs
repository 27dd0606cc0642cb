//! What applying a plan does to stored weights, on their bytes.

mod average;
mod finite;
mod rows;
mod zeros;

pub(crate) use self::finite::position;
pub use self::{
    average::{average, average_of, weighted_average_of},
    finite::{check_finite, check_finite_weight},
    rows::{join_along, select_along, select_rows},
    zeros::count_zeros,
};

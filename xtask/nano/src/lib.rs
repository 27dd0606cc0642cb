//! The embedded model: a small Arctic-shaped mixture of experts that this repository trains; and
//! its relatives without redundant experts ([`models`]), which are trained again when needed.
//!
//! [`corpus`] makes grade-school word problems with worked answers, [`mod@train`] trains a dense
//! model on them, turns each of its MLPs into 32 noisy copies under a router (sparse upcycling) and
//! trains on, and [`export`] writes the result as an ordinary Hugging Face directory. The copies
//! never drift apart entirely, which gives the model what large mixtures of experts have and small
//! ones trained from scratch do not: redundancy between experts.

pub mod batch;
pub mod config;
pub mod corpus;
pub mod data;
pub mod draw;
pub mod evaluate;
pub mod export;
pub mod kernel;
pub mod model;
pub mod models;
pub mod optimizer;
pub mod problem;
mod router;
pub mod story;
pub mod tokenizer;
pub mod train;

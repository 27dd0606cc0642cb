//! The tree is as docs/architecture.md says, and stays readable: edges between crates and modules, sizes, invariants.

mod contents;
mod crates;
mod invariants;
mod messages;
mod modules;
mod sizes;
mod sources;
mod test_items;

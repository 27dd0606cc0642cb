//! The program, as the files that it writes call it.

/// The program and its version: in plans, reports and journals.
pub const TOOL: &str = concat!("moeprune ", env!("CARGO_PKG_VERSION"));

//! Checkpoints as they should be and as they should not, read, written and compared.
#![cfg(unix)] // makes symbolic links

mod abuse_config;
mod abuse_files;
mod abuse_output;
mod any_order;
mod config_rewriting;
mod families;
mod fingerprints;
mod fixture;
mod opaque;
mod output;
mod partial;
mod places;
mod reading;
mod resuming;
mod summaries;
mod verification;
mod weights;
mod writing;

//! Checkpoints as they should be and as they should not, read, written and compared.
#![cfg(unix)] // makes symbolic links

mod abuse_config;
mod abuse_files;
mod abuse_output;
mod config_rewriting;
mod families;
mod fixture;
mod output;
mod reading;
mod summaries;
mod verification;
mod weights;
mod writing;

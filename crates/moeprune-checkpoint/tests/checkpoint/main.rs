//! Checkpoints as they should be and as they should not, read, written and compared.
#![cfg(unix)] // makes symbolic links

mod abuse_config;
mod abuse_files;
mod abuse_output;
mod any_order;
mod config_rewriting;
mod dialects;
mod directories;
mod divided;
mod extra_layers;
mod families;
mod fingerprints;
mod fixture;
mod identity;
mod kinds;
mod not_finite;
mod one_mixer;
mod opaque;
mod output;
mod places;
mod prefixes;
mod pruned;
mod reading;
mod resuming;
mod shards;
mod summaries;
mod unread_keys;
mod verification;
mod verification_by_report;
mod verification_of_repairs;
mod weights;
mod writing;

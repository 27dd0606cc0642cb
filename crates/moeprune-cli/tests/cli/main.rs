//! The binary as a person runs it: what it prints, where, and how it exits.

mod against;
mod choices;
mod command;
mod delivery;
mod destinations;
mod determinism;
mod device;
mod dialects;
mod endpoint;
mod file_systems;
mod full_disk;
mod gguf;
mod hostile;
mod imatrix;
mod model_parts;
mod output;
mod parts;
mod repair;
mod resume;
mod signals;
mod streaming;
mod tasks;
mod texts;
mod tokenizers;

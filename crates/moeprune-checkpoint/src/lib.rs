//! Reading and streaming-writing Hugging Face mixture-of-experts checkpoints, with model families as data

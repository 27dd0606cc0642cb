//! Prune mixture-of-experts language models: experts first, weights next, and measure what was lost

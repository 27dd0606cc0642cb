//! GSM8K exactly as lm-evaluation-harness scores it, and perplexity, over any text generator

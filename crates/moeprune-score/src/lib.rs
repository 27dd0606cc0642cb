//! Unstructured pruning of a weight matrix: magnitude and Wanda scores, OWL layer ratios, per-row masks

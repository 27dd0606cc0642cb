//! Clusterings of mixture-of-experts layers under an expert budget: agglomerative, STUN's greedy linkage, k-means

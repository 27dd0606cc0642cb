//! How alike two experts behave: router-row distance, co-activation and their mix

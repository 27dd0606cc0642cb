//! Data types and stage traits of moeprune, the mixture-of-experts pruner: the seams every stage plugs into

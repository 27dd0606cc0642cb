//! Which expert of a cluster survives, and whether survivors are merged

//! Headers, right and wrong.

mod made;

mod entries;
mod hostile;
mod round_trip;
mod split;
mod unknown_types;

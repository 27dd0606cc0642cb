//! Text that people have, as a model reads it: forms, several files, conversations.

mod conversations;
mod model;
mod several;

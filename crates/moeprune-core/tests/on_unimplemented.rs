//! What the compiler says where a type should implement a trait of this crate and does not: what the trait is for, and which
//! method to write.
//!
//! One file per trait in `on_unimplemented`, with the text expected beside it. After a change of a text, or with a compiler
//! that words what surrounds it differently, `TRYBUILD=overwrite cargo test -p moeprune-core --test on_unimplemented` writes
//! the texts again; read the difference before it is committed.

#[test]
fn errors_say_what_to_implement() {
    trybuild::TestCases::new().compile_fail("tests/on_unimplemented/*.rs");
}

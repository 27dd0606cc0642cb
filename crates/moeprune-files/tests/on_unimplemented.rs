//! What the compiler says where a type should implement a trait of this crate and does not: what the trait is for, and which
//! methods to write.
//!
//! After a change of a text, `TRYBUILD=overwrite cargo test -p moeprune-files --test on_unimplemented` writes the expected texts
//! again; read the difference before it is committed.

#[test]
fn errors_say_what_to_implement() {
    trybuild::TestCases::new().compile_fail("tests/on_unimplemented/*.rs");
}

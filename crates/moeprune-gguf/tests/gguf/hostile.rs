//! Headers that are refused.

use moeprune_core::Dtype;
use moeprune_gguf::{Entries, Header, NewTensor, Value};

use crate::made::{Long, Made, check_refused};

#[track_caller]
fn check(made: Made, expected: &str) {
    check_refused(made.read(), expected);
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
const U32: u32 = 4;
const F32: u32 = 0;
const Q4_0: u32 = 2;

#[test]
fn other_files_and_versions() {
    check(Made(vec![]), "no GGUF file: it is empty (0 bytes)");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7\n";
    check(Made(pointer.to_vec()), "no GGUF file: it is a git-lfs pointer");
    check(Made(b"<!doctype html><html>".to_vec()), "no GGUF file: it is a web page");
    check(Made(b"GG".to_vec()), "begins with [47, 47]");
    check(Made(b"ggml\x03\0\0\0".to_vec()), "expected `GGUF`");
    check(
        Made(b"GGUF".to_vec()),
        "the beginning of the header needs 4 more bytes, and the file has 0",
    );
    check(Made::version(1, 0, 0), "GGUF version 1; versions 2 and 3 are read; convert");
    check(Made::version(4, 0, 0), "GGUF version 4; versions 2 and 3 are read");
    check(Made::version(0, 0, 0), "GGUF version 0");
    check(Made::version(0x0300_0000, 0, 0), "a big-endian GGUF file (version 3)");
    check(Made::version(0x0200_0000, 0, 0), "a big-endian GGUF file (version 2)");
}

#[test]
fn counts_that_the_file_cannot_hold() {
    check(Made::new(1 << 60, 0), "a header of 1152921504606846976 tensors needs");
    check(
        Made::new(u64::MAX, 0),
        "tensors needs 18446744073709551615 more bytes, and the file has 0",
    );
    check(Made::new(0, u64::MAX), "keys needs 18446744073709551615 more bytes");
    check(
        Made::new(0, 2).key("a", 0, &[1]),
        "a header of 2 keys needs 26 more bytes, and the file has 14",
    );
    let array = |count: u64, kind: u32| Made::new(0, 1).text("a").u32(ARRAY).u32(kind).u64(count);
    check(array(1 << 61, U32), "the value of key `a` needs 9223372036854775808 more bytes");
    check(array(1 << 62, U32), "the value of key `a` needs 18446744073709551615 more bytes");
    check(array(1 << 60, STRING), "needs 9223372036854775808 more bytes");
    check(array(1 << 60, ARRAY), "needs 13835058055282163712 more bytes");
    check(array(3, U32).bytes(&[0; 11]), "needs 12 more bytes, and the file has 11");
    check(
        Made::new(0, 1).u64(1 << 60).bytes(&[0; 40]),
        "key 0 needs 1152921504606846976 more bytes",
    );
    check(Made::new(0, 1).text("a").u32(STRING).u64(u64::MAX), "`a` needs 18446744073709551615");
    let name = Made::new(1, 0).u64(u64::MAX).bytes(&[0; 40]);
    check(name, "tensor 0 needs 18446744073709551615 more bytes, and the file has 40");
}

#[test]
fn a_header_is_not_as_long_as_its_file() {
    let check = |made: Made, expected: &str| {
        check_refused(Header::read(&Long(made.0, 1 << 50)), expected);
    };
    check(Made::new(1 << 40, 0), "a header of 1099511627776 tensors ends beyond 1073741824 bytes");
    check(Made::new(0, 1 << 40), "a header of 1099511627776 keys ends beyond");
    check(Made::new(0, 1).u64(1 << 40), "key 0 ends beyond 1073741824 bytes");
    let array = Made::new(0, 1).text("a").u32(ARRAY).u32(U32).u64(1 << 38);
    check(array, "the value of key `a` ends beyond");
}

#[test]
fn files_that_end_early() {
    let whole = Made::new(2, 2)
        .key("general.alignment", U32, &32_u32.to_le_bytes())
        .text("tokens")
        .u32(ARRAY)
        .u32(STRING)
        .u64(2)
        .text("a")
        .text("bc")
        .tensor("x", &[8, 2], F32, 0)
        .tensor("y", &[32, 3], Q4_0, 64)
        .data(64 + 54);
    assert_eq!(whole.read().unwrap().tensors().len(), 2);
    for length in 0..whole.0.len() {
        let error = Made(whole.0[..length].to_vec()).read().unwrap_err().to_string();
        let known = ["no GGUF file", "more bytes, and the file has", "download it again"];
        assert!(known.iter().any(|known| error.contains(known)), "{length}: {error}");
    }
}

#[test]
fn keys_and_values() {
    let twice = Made::new(0, 2).key("a", 0, &[1]).key("a", 1, &[1]);
    check(twice, "key `a`: is there twice");
    check(Made::new(0, 1).key("a", 13, &[0; 8]), "key `a`: is of value type 13, expected 0 to 12");
    check(Made::new(0, 1).key("a", u32::MAX, &[0; 8]), "value type 4294967295");
    check(Made::new(0, 1).text("a").u32(ARRAY).u32(77).u64(0), "is of value type 77");
    check(Made::new(0, 1).text(b"\xff\xfea").u32(0).bytes(&[0]), "the name of key 0 is no UTF-8");
    let nested = (0..100).fold(Made::new(0, 1).text("a").u32(ARRAY), |m, _| m.u32(ARRAY).u64(1));
    check(nested.u32(0).u64(0), "key `a`: has arrays in arrays, more than 8 deep");
}

#[test]
fn alignments() {
    let aligned =
        |kind: u32, value: &[u8]| Made::new(0, 1).key("general.alignment", kind, value).data(0);
    for wrong in [0_u32, 1, 4, 7, 12, 24, 48, 1 << 21, 1 << 31, u32::MAX] {
        let expected =
            format!("key `general.alignment`: is {wrong}, expected a power of two from 8");
        check(aligned(U32, &wrong.to_le_bytes()), &expected);
    }
    check(aligned(STRING, &Made(vec![]).text("32").0), "is the string \"32\", expected an integer");
    check(
        aligned(5, &(-32_i32).to_le_bytes()),
        "is I32(-32), expected an integer that is not negative",
    );
    check(aligned(6, &32_f32.to_le_bytes()), "is F32(32.0), expected an integer");
    for right in [8_u32, 32, 64, 1 << 20] {
        let header = aligned(U32, &right.to_le_bytes()).read().unwrap();
        assert_eq!(header.alignment(), u64::from(right));
    }
}

#[test]
fn what_is_said_of_tensors() {
    let one = |dims: &[u64], kind: u32, offset: u64| {
        Made::new(1, 0).tensor("x", dims, kind, offset).data(256)
    };
    check(one(&[1, 1, 1, 1, 1], F32, 0), "tensor `x`: has 5 dimensions, expected up to 4");
    check(Made::new(1, 0).text("x").u32(u32::MAX).bytes(&[0; 64]), "has 4294967295 dimensions");
    check(one(&[33, 2], Q4_0, 0), "has rows of 33 elements, expected a multiple of the 32 of Q4_0");
    check(one(&[], Q4_0, 0), "has rows of 1 elements, expected a multiple of the 32 of Q4_0");
    check(one(&[1 << 62, 2, 2], F32, 0), "has more bytes than can be counted");
    check(one(&[1 << 62], F32, 0), "has more bytes than can be counted");
    check(one(&[1 << 61], F32, 0), "ends at byte 9223372036854775872 of a file of 320");
    check(one(&[65], F32, 0), "ends at byte 324 of a file of 320; download it again");
    check(one(&[8], F32, 33), "begins at byte 33 of the data, expected a multiple of 32");
    check(
        one(&[8], F32, 1 << 40),
        "begins at byte 1099511627776 of the data, which begins at byte 64",
    );
    check(one(&[8], F32, u64::MAX - 31), "begins at byte 18446744073709551584 of the data");
    let name = Made::new(1, 0).text(b"\xffx").u32(0).u32(0).u64(0).data(4);
    check(name, "the name of tensor 0 is no UTF-8");
}

#[test]
fn tensors_that_do_not_fit_together() {
    let two = |first: (&str, u64), second: (&str, u64), data: usize| {
        let made = Made::new(2, 0).tensor(first.0, &[8], F32, first.1);
        made.tensor(second.0, &[8], F32, second.1).data(data)
    };
    assert!(two(("x", 0), ("y", 32), 64).read().is_ok());
    assert!(two(("x", 32), ("y", 0), 64).read().is_ok(), "any order");
    check(two(("x", 0), ("x", 32), 64), "tensor `x`: is there twice");
    check(
        two(("x", 0), ("y", 0), 32),
        "tensor `y`: begins at byte 96 of the file, before `x` ends at 128",
    );
    check(
        two(("x", 0), ("y", 64), 96),
        "bytes 128..160 of the file, before tensor `y`, belong to no tensor",
    );
    check(two(("x", 32), ("y", 64), 96), "before tensor `x`, belong to no tensor");
    check(two(("x", 0), ("y", 32), 96), "behind the last tensor, `y`, belong to no tensor");
    check(Made::new(0, 0).data(64), "behind a header without tensors, belong to no tensor");
    assert!(two(("x", 0), ("y", 32), 64 + 31).read().is_ok(), "padding");
    let long = Made::new(2, 0).tensor("x", &[9], F32, 0).tensor("y", &[8], F32, 32).data(64);
    check(long, "tensor `y`: begins at byte 128 of the file, before `x` ends at 132");
    let empty = Made::new(2, 0).tensor("x", &[0], F32, 0).tensor("y", &[8], F32, 0).data(32);
    assert!(empty.read().is_ok(), "tensors of no bytes are nowhere");
}

#[test]
fn headers_that_are_not_made() {
    let check = |dtype: Dtype, shape: &[usize], expected: &str| {
        let tensor = NewTensor { name: "x".to_owned(), dtype, shape: shape.to_vec() };
        check_refused(Header::new(3, Entries::new(), vec![tensor]), expected);
    };
    let q4 = Dtype::from_ggml(Q4_0).unwrap();
    check(Dtype::U8, &[1], "tensor `x`: is U8, which ggml lacks");
    check(Dtype::F32, &[1; 5], "has 5 dimensions");
    check(q4, &[2, 33], "has rows of 33 elements");
    check(Dtype::F32, &[usize::MAX, 4], "has more bytes than can be counted");
    check_refused(Header::new(1, Entries::new(), vec![]), "GGUF version 1");
    let x = NewTensor { name: "x".to_owned(), dtype: Dtype::F32, shape: vec![1 << 61] };
    check_refused(Header::new(3, Entries::new(), vec![x.clone(), x.clone()]), "is there twice");
    let large = |name: &str| NewTensor { name: name.to_owned(), shape: vec![1 << 60], ..x.clone() };
    let five = ["a", "b", "c", "d", "e"].map(large).to_vec();
    check_refused(Header::new(3, Entries::new(), five), "ends beyond what can be counted");
    let mut entries = Entries::new();
    entries.push("general.alignment", Value::U32(3)).unwrap();
    check_refused(Header::new(3, entries, vec![]), "is 3, expected a power of two");
}

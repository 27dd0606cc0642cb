//! Tensors of types that are not known.

use moeprune_core::Dtype;

use crate::made::{Made, check_refused};

/// A tensor of type 47 before one of eight F32, with so many bytes between their beginnings.
fn made(dims: &[u64], room: usize) -> Made {
    Made::new(2, 0).tensor("x", dims, 47, 0).tensor("y", &[8], 0, room as u64).data(room + 32)
}

#[test]
fn the_file_says_their_size() {
    let check = |dims: &[u64], room: usize, row_bytes: usize| {
        let header = made(dims, room).read().unwrap();
        let Dtype::Ggml(blocks) = header.tensors()[0].dtype else { panic!("{header:?}") };
        assert_eq!(blocks.to_string(), "type 47");
        assert_eq!((blocks.block_elements(), blocks.block_bytes()), (dims[0] as usize, row_bytes));
        let range = &header.tensors()[0].range;
        let rows: u64 = dims[1..].iter().product();
        assert_eq!(range.end - range.start, rows * row_bytes as u64);
    };
    check(&[256, 32], 320, 10);
    check(&[256, 33], 352, 10);
    check(&[100, 8, 8], 64 * 7, 7);
    check(&[100, 1000], 5024, 5);
    check(&[64, 31], 64, 2);
}

#[test]
fn they_are_sized_at_the_end_of_a_file_too() {
    let at_end = |data: usize| {
        let made = Made::new(2, 0).tensor("y", &[8], 0, 0).tensor("x", &[256, 40], 42, 32);
        made.data(32 + data).read().map(|header| header.tensors()[1].range.end - 128 - 32)
    };
    assert_eq!(at_end(400).unwrap(), 400);
    assert_eq!(at_end(416).unwrap(), 400);
    check_refused(at_end(433), "no size of [40, 256] fits the 433 bytes up to the next tensor");
}

#[test]
fn sizes_that_cannot_be_told() {
    let check = |dims: &[u64], room: usize, expected: &str| {
        check_refused(made(dims, room).read(), expected);
    };
    let expected = "tensor `x`: is of type 47, which is not known, and more than one size of [8] fits the 32 bytes";
    check(&[8], 32, expected);
    check(&[8, 16], 64, "more than one size of [16, 8] fits the 64 bytes up to the next tensor");
    check(&[8, 1000], 960, "no size of [1000, 8] fits the 960 bytes");
    check(&[8, 100], 288, "no size");
    check(&[8, 0], 0, "no size");
    check(&[0, 40], 64, "no size");
    check(&[8, 1 << 40, 1 << 40], 32, "no size");
}

#[test]
fn one_that_is_known_is_not_sized_by_the_file() {
    // Q8_0: 34 bytes a row of 32; the room is for 2 bytes more.
    let made = Made::new(2, 0).tensor("x", &[32, 32], 8, 0).tensor("y", &[8], 0, 1152);
    check_refused(
        made.data(1184).read(),
        "bytes 1216..1280 of the file, before tensor `y`, belong to no tensor",
    );
}

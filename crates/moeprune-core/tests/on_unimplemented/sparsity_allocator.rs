use moeprune_core::SparsityAllocator;

struct Custom;

fn main() {
    let _: Box<dyn SparsityAllocator> = Box::new(Custom);
}

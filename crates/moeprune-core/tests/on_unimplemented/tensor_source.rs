use moeprune_core::TensorSource;

struct Custom;

fn main() {
    let _: Box<dyn TensorSource> = Box::new(Custom);
}

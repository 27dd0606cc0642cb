use moeprune_core::TensorSink;

struct Custom;

fn main() {
    let _: Box<dyn TensorSink> = Box::new(Custom);
}

use moeprune_core::WeightReconstructor;

struct Custom;

fn main() {
    let _: Box<dyn WeightReconstructor> = Box::new(Custom);
}

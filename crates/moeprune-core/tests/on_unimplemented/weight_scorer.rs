use moeprune_core::WeightScorer;

struct Custom;

fn main() {
    let _: Box<dyn WeightScorer> = Box::new(Custom);
}

use moeprune_core::ExpertSimilarity;

struct Custom;

fn main() {
    let _: Box<dyn ExpertSimilarity> = Box::new(Custom);
}

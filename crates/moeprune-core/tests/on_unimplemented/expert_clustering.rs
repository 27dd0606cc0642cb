use moeprune_core::ExpertClustering;

struct Custom;

fn main() {
    let _: Box<dyn ExpertClustering> = Box::new(Custom);
}

use moeprune_core::ExpertSaliency;

struct Custom;

fn main() {
    let _: Box<dyn ExpertSaliency> = Box::new(Custom);
}

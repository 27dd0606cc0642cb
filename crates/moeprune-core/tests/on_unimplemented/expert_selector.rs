use moeprune_core::ExpertSelector;

struct Custom;

fn main() {
    let _: Box<dyn ExpertSelector> = Box::new(Custom);
}

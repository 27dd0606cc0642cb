use moeprune_checkpoint::Container;

struct Custom;

fn main() {
    let _: Box<dyn Container> = Box::new(Custom);
}

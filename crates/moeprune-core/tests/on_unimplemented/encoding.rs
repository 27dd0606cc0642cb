use moeprune_core::Encoding;

struct Custom;

fn main() {
    let _: Box<dyn Encoding> = Box::new(Custom);
}

use moeprune_eval::Generator;

struct Custom;

fn main() {
    let _: Box<dyn Generator> = Box::new(Custom);
}

use moeprune_eval::Task;

struct Custom;

fn main() {
    let _: Box<dyn Task> = Box::new(Custom);
}

use moeprune_files::Files;

struct Custom;

fn main() {
    let _: Box<dyn Files> = Box::new(Custom);
}

use moeprune_files::ReadAt;

struct Custom;

fn main() {
    let _: Box<dyn ReadAt> = Box::new(Custom);
}

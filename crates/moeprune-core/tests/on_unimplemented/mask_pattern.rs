use moeprune_core::stage::MaskPattern;

struct Custom;

fn main() {
    let _: Box<dyn MaskPattern> = Box::new(Custom);
}

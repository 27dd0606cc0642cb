//! Writes the page of a model that does not exist: `made_up [layers] [experts]`, to standard output.
#![expect(clippy::print_stdout, reason = "the page is what it prints")]

mod comparison;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let layers = numbers.next().transpose()?.unwrap_or(4);
    let experts = numbers.next().transpose()?.unwrap_or(16);
    print!("{}", moeprune_page::render(&comparison::comparison(layers, experts))?);
    Ok(())
}

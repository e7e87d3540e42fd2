//! x
#![allow(clippy::print_stdout, clippy::unwrap_used)]
fn main() {
    let text = std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap();
    let w: partita_differential::world::World = serde_json::from_str(&text).unwrap();
    let mut oracle = partita_cluster::Oracle::start().unwrap();
    println!("{:?}", oracle.ask(&w.case().unwrap()).unwrap());
    let mut b = partita_differential::brain::Brain::new(w).unwrap();
    println!("{:?}", b.feasible());
    println!("{:?}", b.place().unwrap());
}

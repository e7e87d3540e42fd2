//! Puts GPUs that do not exist into a folder, with MIG on: `cargo run -p partita-fake-nvml --example make -- FOLDER H100-80GB×2`.

use std::{env, path::Path};

use nvidia_ml::Fake;

fn main() {
    let given: Vec<String> = env::args().skip(1).collect();
    let [folder, spec] = given.as_slice() else { panic!("say a folder and GPUs: FOLDER H100-80GB×2") };
    let fake = Fake::create(Path::new(folder), spec).unwrap_or_else(|error| panic!("{error}"));
    let gpus = fake.state().map_or(0, |state| state.gpus.len());
    for gpu in 0..gpus {
        fake.set_mig(gpu, true).unwrap_or_else(|error| panic!("{error}"));
    }
}

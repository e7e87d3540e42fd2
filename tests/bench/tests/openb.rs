//! The published figures of the openb trace, reproduced on two workloads and two orders of arrival; `partita-bench openb-baselines` does
//! all twenty-five. The trace lies beside the repository and is not part of it: without it these tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use partita_bench::openb::{self, BASELINES, Done};
use partita_policy::{Compiler, Host, HostConfig};

const TRACES: [&str; 2] = ["default", "gpuspec33"];
const SEEDS: [u32; 2] = [42, 43];

/// The trace, or a word on why the test ends here.
fn data() -> Option<PathBuf> {
    let data = openb::data(None);
    if data.join("nodes.csv").exists() {
        return Some(data);
    }
    drop(writeln!(std::io::stderr(), "skipped: the openb trace is not at {}", data.display()));
    None
}

/// A host whose compiler is the benchmark program of this build.
fn host() -> Host {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_partita-bench"));
    let compiler = Compiler { program, ..Compiler::this_program().unwrap() };
    let cache_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    Host::new(HostConfig { compiler, cache_dir, ..HostConfig::new().unwrap() }).unwrap()
}

fn run(policy: &'static str, settings: &'static str) -> Option<Vec<Done>> {
    let data = data()?;
    let jobs = openb::jobs(policy, settings, false, &TRACES, &SEEDS);
    Some(openb::run_all(&host(), &data, &jobs, 2, &|| {}).unwrap())
}

#[test]
fn every_baseline_allocates_what_its_authors_published() {
    let Some(data) = data() else { return };
    let published = openb::published(&data).unwrap();
    for baseline in BASELINES.iter().filter(|baseline| baseline.tolerance.is_some()) {
        let done = run(baseline.policy, baseline.settings).unwrap();
        let rows = openb::reproduce(&done, &published).unwrap();
        let row = rows.iter().find(|row| row.published == baseline.published).unwrap();
        assert_eq!(row.runs, TRACES.len() * SEEDS.len());
        assert!(row.holds(), "{} differs by {} at {}", row.published, row.largest, row.at);
    }
}

#[test]
fn the_default_policy_allocates_more_than_fgd_and_first_fit() {
    let Some(data) = data() else { return };
    let published = openb::published(&data).unwrap();
    let (ours, first_fit) = (run("fragmentation", "").unwrap(), run("first-fit", "").unwrap());
    for (ours, first_fit) in ours.iter().zip(&first_fit) {
        let fgd = published[&(ours.job.trace.to_owned(), "06-FGD".to_owned(), ours.job.seed)][3];
        let (mine, theirs) = (ours.at_100().unwrap(), fgd.max(first_fit.at_100().unwrap()));
        assert!(mine > theirs, "{:?}: {mine:.2} % against {theirs:.2} %", ours.job);
    }
}

#[test]
fn component_and_native_code_decide_alike() {
    let Some(data) = data() else { return };
    let host = host();
    for job in openb::jobs("fragmentation", "", false, &["default"], &[42]) {
        let component = openb::run(&host, &data, &job).unwrap();
        let native = openb::run(&host, &data, &openb::Job { native: true, ..job.clone() }).unwrap();
        assert_eq!(component.result, native.result);
    }
}

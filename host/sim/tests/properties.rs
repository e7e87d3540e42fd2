//! Readers under arbitrary and damaged input: they never panic, and say where they stopped.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test that panics has failed, as it should; the figures are exact")]

use partita_sim::{Cluster, InputError, Times, Workload, openb, sample};
use proptest::prelude::*;

type Reader = fn(&[u8]) -> Result<(), InputError>;

const READERS: [(&str, Reader); 6] = [
    ("cluster", |bytes| Cluster::parse("f", bytes).map(drop)),
    ("workload", |bytes| Workload::parse("f", bytes).map(drop)),
    ("nodes", |bytes| openb::parse_nodes("f", bytes).map(drop)),
    ("pods in order", |bytes| openb::parse_pods("f", bytes, Times::Order).map(drop)),
    ("pods in time", |bytes| openb::parse_pods("f", bytes, Times::Trace).map(drop)),
    ("arrivals", |bytes| openb::parse_arrivals("f", bytes).map(drop)),
];

const VALID: [&str; 6] = [
    "[[model]]\nname = \"X\"\n[model.grid]\nslots = 2\ncompute = 2\nprofiles = [{ name = \"1g\", compute = 1, size = 1, memory_mib = 5, starts = [0, 1], max = 2 }]\n\
     [[node]]\nname = \"n-\"\ncount = 3\ncpu = \"500m\"\nmemory = \"64Gi\"\npartitioning = \"auto\"\ngpus = [{ model = \"X\", count = 2, cut = \"mig\" }, { model = \"T4\", count = 1 }]\n",
    "name,namespace,priority,cpu,memory,gpus,gpu_milli,mig,models,arrival,lifetime,mps_memory,part_memory,part_compute,isolation,restartable,min_runtime\na,b,-1,2,1Gi,1,250,,T4|A30,0.5,10,,,,,true,5\n\
     \"c,d\",b,3,500m,1Mi,,,2 x 1g.6gb + 2g.12gb,,7,,,,,,,\ne,b,3,1,1Mi,,,,,7,,4Gi,,,,,\nf,b,3,1,1Mi,,,,,7,,,4Gi,10,memory,,\n",
    "sn,cpu_milli,memory_mib,gpu,model\nb,64000,262144,2,P100\na,1,1,0,\n",
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\na,1,1,1,500,T4|P100\nb,1,1,0,0,\n",
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time,scheduled_time\na,1,1,1,500,0,5,1\nb,1,1,0,0,3,,\n",
    "0 1 1 0\n1 0 2\n",
];

/// An error is of this file and, unless it is about the whole of it, of a line that the file has.
fn located(error: &InputError, bytes: &[u8]) -> bool {
    let lines = bytes.split(|&byte| byte == b'\n').count() as u64;
    let whole = error.line.is_none() && (error.problem.starts_with("has no") || error.problem.starts_with("is empty"));
    &*error.file == "f" && !error.problem.is_empty() && (whole || error.line.is_some_and(|line| (1..=lines).contains(&line)))
}

/// Bytes that break things, more often than chance would have them.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let strange: Vec<&'static [u8]> = vec![
        b"",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b",",
        b"\"",
        b"\n",
        b"\r\n",
        b"|",
        b"-",
        b"99999999999999999999",
        b"1e400",
        b"NaN",
        b"=",
        b"[[",
        b"]]",
        b"[[node]]\n",
        b"{",
        b"}",
        b"'''",
        b"\\u{0}",
        "\u{2028}".as_bytes(),
        "٣".as_bytes(),
        b"0.0001",
        b" ",
        b"64",
        b"1001",
    ];
    prop_oneof![3 => prop::sample::select(strange).prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..6)]
}

fn damaged(valid: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, piece()), 0..4).prop_map(move |edits| {
        let mut bytes = valid.as_bytes().to_vec();
        for (at, cut, piece) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_read_or_refused_with_their_place(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (name, read) in READERS {
            if let Err(error) = read(&bytes) {
                prop_assert!(located(&error, &bytes), "{name}: {error:?}");
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_its_place(text in "(\\[\\[node\\]\\]|name,cpu,memory,arrival|sn|[a-z]{1,3}|[0-9]{1,3}|[,=\"\n{}\\[\\].| ])*") {
        for (name, read) in READERS {
            if let Err(error) = read(text.as_bytes()) {
                prop_assert!(located(&error, text.as_bytes()), "{name}: {error:?}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_with_its_place(files in (damaged(VALID[0]), damaged(VALID[1]), damaged(VALID[2]), damaged(VALID[3]), damaged(VALID[4]), damaged(VALID[5]))) {
        let files = [files.0, files.1, files.2, files.3, files.4, files.5];
        for ((name, read), bytes) in READERS.iter().zip(&files) {
            if let Err(error) = read(bytes) {
                prop_assert!(located(&error, bytes), "{name}: {error:?} in {}", String::from_utf8_lossy(bytes));
            }
        }
    }

    #[test]
    fn a_cluster_survives_being_written(names in prop::collection::btree_set("[ -~äß]{0,6}[a-z]", 1..5), cpu in 0..=1_000_000_000u32, memory in 0..=1u32 << 30, gpus in 0..5usize, partitioning in prop::sample::select(vec!["fixed", "off", "mig", "mps", "time-slicing", "auto"])) {
        let models = ["T4", "A30", "H100-80GB"];
        let gpus: Vec<String> = (0..gpus).map(|row| format!("{{ model = \"{}\", count = {} }}", models[row % 3], row + 1)).collect();
        let node = |name: &String| {
            let name = toml_text(name.trim());
            format!("[[node]]\nname = {name}\ncpu = \"{cpu}m\"\nmemory = \"{memory}Mi\"\npartitioning = \"{partitioning}\"\ngpus = [{}]\n", gpus.join(", "))
        };
        let names: std::collections::BTreeSet<String> = names.iter().map(|name| name.trim().to_owned()).collect();
        let text: String = names.iter().map(node).collect();
        let cluster = Cluster::parse("f", text.as_bytes()).unwrap();
        prop_assert_eq!(cluster.nodes.len(), names.len());
        prop_assert_eq!(Cluster::parse("f", cluster.to_toml().unwrap().as_bytes()).unwrap(), cluster);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_workload_survives_being_written(seed: u64) {
        let (_, text) = sample::generate(seed);
        let workload = Workload::parse("f", text.as_bytes()).unwrap();
        prop_assert_eq!(workload.pods.len(), sample::PODS);
        prop_assert_eq!(Workload::parse("f", workload.to_csv().as_bytes()).unwrap(), workload);
    }
}

prop_compose! {
    /// A row of a workload without its name.
    fn row()(
        cpu in 0..100_000u32,
        ask in prop_oneof![
            Just(",,,,,,".to_owned()),
            (1..=64u32, 1..=1000u32).prop_map(|(gpus, milli)| format!("{gpus},{milli},,,,,")),
            prop::collection::vec((1..=9u32, prop::sample::select(vec!["1g.10gb", "1g.10gb+me", "mig-2g.20gb", "odd"])), 1..4).prop_map(|kinds| {
                let kinds: Vec<String> = kinds.iter().map(|(count, name)| format!("{count} x {name}")).collect();
                format!(",,{},,,,", kinds.join(" + "))
            }),
            (1..=200_000u32).prop_map(|mib| format!(",,,{mib}Mi,,,")),
            (1..=200_000u32, 0..=100u32, prop::sample::select(vec!["", "hardware", "memory", "shared"]))
                .prop_map(|(mib, compute, isolation)| format!(",,,,{mib}Mi,{compute},{isolation}")),
        ],
        restartable in prop::sample::select(vec!["", "true", "false"]),
        min_runtime_ms in 0..100_000u64,
        arrival_ms in 0..100_000u64,
    ) -> String {
        let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
        format!("{cpu}m,1Mi,{ask},{restartable},{},{}", seconds(min_runtime_ms), seconds(arrival_ms))
    }
}

proptest! {
    #[test]
    fn every_way_to_ask_survives_being_written(mut rows in prop::collection::vec(row(), 1..20)) {
        // Written in the order of arrival, which must not change.
        rows.sort_by_key(|row| row.rsplit(',').next().unwrap().replace('.', "").parse::<u64>().unwrap());
        let mut text = "name,cpu,memory,gpus,gpu_milli,mig,mps_memory,part_memory,part_compute,isolation,restartable,min_runtime,arrival\n".to_owned();
        text += &rows.iter().enumerate().map(|(number, row)| format!("p{number},{row}\n")).collect::<Vec<_>>().concat();
        let workload = Workload::parse("f", text.as_bytes()).unwrap();
        prop_assert_eq!(Workload::parse("f", workload.to_csv().as_bytes()).unwrap(), workload);
    }
}

fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[test]
fn the_undamaged_files_are_valid() {
    for ((name, read), text) in READERS.iter().zip(VALID) {
        assert_eq!(read(text.as_bytes()), Ok(()), "{name}");
    }
}

#[test]
fn every_prefix_of_a_valid_file_is_read_or_refused_with_its_place() {
    for ((name, read), text) in READERS.iter().zip(VALID) {
        for end in 0..text.len() {
            if let Err(error) = read(&text.as_bytes()[..end]) {
                assert!(located(&error, &text.as_bytes()[..end]), "{name}: {error:?}");
            }
        }
    }
}

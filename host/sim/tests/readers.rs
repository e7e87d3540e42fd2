//! What readers refuse, word for word.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::{error::Error, fs, path::PathBuf};

use partita_core::model::{Cut, GpuAsk, Partitioning, catalog, node::MODELS_MAX};
use partita_sim::{Cluster, SimError, Times, Workload, load, openb, text};

fn lines(lines: &[&str]) -> Vec<u8> {
    lines.join("\n").into_bytes()
}

fn cluster_error(text: &[u8]) -> String {
    Cluster::parse("c.toml", text).unwrap_err().to_string()
}

#[test]
fn a_cluster_is_refused_with_line_key_value_and_remedy() {
    let node = "[[node]]\nname = \"a\"\ncpu = 8\nmemory = \"64Gi\"\n";
    let gpus = |gpus: &str| format!("{node}gpus = {gpus}\n");
    let mut known: Vec<&str> = catalog::names().collect();
    known.sort_unstable();
    let known = known.join(", ");
    let unknown =
        format!("c.toml:5: model: \"Voodoo2\" is a GPU model that nobody described; use one of {known}, or describe it with [[model]]");
    let (driver, _) = catalog::driver_only().next().unwrap();
    let unpublished = format!(
        "c.toml:5: model: \"{driver}\" is a model whose placements are not published; describe its grid with [[model]], as its driver lists it"
    );
    let cases = [
        (String::new(), "c.toml: is empty; see FORMATS.md for what it should hold"),
        ("# nothing".into(), "c.toml: has no nodes; add [[node]] with name, cpu, memory and gpus"),
        (format!("{node}name = \"b\""), "c.toml:5: duplicate key; see FORMATS.md for the keys of a cluster"),
        (
            format!("{node}colour = 1"),
            "c.toml:5: unknown field `colour`, expected one of `name`, `count`, `cpu`, `memory`, `gpus`, `partitioning`; see FORMATS.md for the keys of a cluster",
        ),
        ("[[node]]\nname = \"a\"\n".into(), "c.toml:1: missing field `cpu`; see FORMATS.md for the keys of a cluster"),
        (node.replace('8', "\"8x\""), "c.toml:3: cpu: \"8x\" is not an amount of cpu; write cores, 2 or 0.5, or milli-cores, 500m"),
        (node.replace('8', "-8"), "c.toml:3: cpu: \"-8\" is not an amount of cpu; write cores, 2 or 0.5, or milli-cores, 500m"),
        (
            node.replace("\"64Gi\"", "64"),
            "c.toml:4: invalid type: integer `64`, expected memory with its unit, such as \"512Gi\"; see FORMATS.md for the keys of a cluster",
        ),
        (
            node.replace("64Gi", "64GiB"),
            "c.toml:4: memory: \"64GiB\" is not an amount of memory; write a number and a unit, such as 512Mi or 16Gi",
        ),
        (
            node.replace('8', "1000001"),
            "c.toml:3: cpu: \"1000001\" is more cpu than any machine has; check the unit; the limit is 1000000 cores",
        ),
        (
            node.replace("64Gi", "1025Ti"),
            "c.toml:4: memory: \"1025Ti\" is more memory than any machine has; check the unit; the limit is 1024Ti",
        ),
        (node.replace("\"a\"", "\"\""), "c.toml:2: name: is empty; give it a name"),
        (format!("{node}\n{node}"), "c.toml:7: name: \"a\" is the name of the node in line 1 too; give each node its own name"),
        (format!("{node}count = 0"), "c.toml:5: count: \"0\" is no number of nodes; write 1 to 50000, or leave it out for one node"),
        (gpus("{ model = \"Voodoo2\", count = 1 }"), &unknown),
        (gpus(&format!("{{ model = \"{driver}\", count = 1 }}")), &unpublished),
        (
            gpus("{ model = \"T4\", count = 1, cut = \"mig\" }"),
            "c.toml:5: model: \"T4\" is a model that MIG cannot cut; use cut = \"shares\", or describe its grid with [[model]]",
        ),
        (
            gpus("[{ model = \"T4\", count = 60 },\n  { model = \"T4\", count = 5 }]"),
            "c.toml:6: count: \"5\" is no number of GPUs for this node; a node has 1 to 64 GPUs, or no gpus key",
        ),
        (
            gpus("{ model = \"T4\", count = 1, cut = \"knife\" }"),
            "c.toml:5: unknown variant `knife`, expected one of `shares`, `mig`, `mps`; see FORMATS.md for the keys of a cluster",
        ),
        (
            format!("[[model]]\nname = \"X\"\n[model.grid]\nslots = 0\ncompute = 1\nprofiles = []\n{node}"),
            "c.toml:1: model: \"X\" a grid has 1 to 12 memory slots and 1 to 12 compute slices, this one has 0 and 1; correct the grid, or leave it out for a model without MIG",
        ),
        (
            format!("[[model]]\nname = \"X\"\n[[model]]\nname = \"X\"\n{node}"),
            "c.toml:3: model: \"X\" is described twice; keep one [[model]] of this name",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(cluster_error(text.as_bytes()), message, "{text}");
    }
}

#[test]
fn a_cluster_has_bounds() {
    let many = "[[node]]\nname = \"a\"\ncount = 50000\ncpu = 1\nmemory = \"1Gi\"\n";
    assert_eq!(Cluster::parse("c", many.as_bytes()).unwrap().nodes.len(), 50_000);
    let more = format!("{many}[[node]]\nname = \"b\"\ncpu = 1\nmemory = \"1Gi\"\n");
    assert_eq!(cluster_error(more.as_bytes()), "c.toml:6: node: is beyond the limit of 50000 nodes; describe fewer");
    let gpus = format!("{many}gpus = {{ model = \"T4\", count = 9 }}");
    assert_eq!(cluster_error(gpus.as_bytes()), "c.toml:1: node: is beyond the limit of 400000 GPUs; describe fewer");
    assert_eq!(
        cluster_error(&vec![b'['; text::CLUSTER_MAX + 1]),
        "c.toml: is larger than 4 MiB, the limit for this kind of file; split it, or check that it is the file meant"
    );
}

#[test]
fn a_cluster_says_what_its_nodes_have() {
    let text = "[[node]]\nname = \"n-\"\ncount = 11\ncpu = \"500m\"\nmemory = \"1024Ki\"\n\
                gpus = [{ model = \"A30\", count = 1, cut = \"mig\" }, { model = \"T4\", count = 2 }]\n";
    let cluster = Cluster::parse("c", text.as_bytes()).unwrap();
    assert_eq!((cluster.nodes[0].name.as_str(), cluster.nodes[10].name.as_str()), ("n-00", "n-10"));
    assert_eq!((cluster.nodes[3].cpu_milli, cluster.nodes[3].memory_mib, cluster.gpus()), (500, 1, 33));
    assert_eq!(cluster.nodes[0].gpus.iter().map(|gpu| gpu.cut).collect::<Vec<_>>(), [Cut::Mig, Cut::Shares, Cut::Shares]);
    assert_eq!(cluster.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["A30", "T4"]);
}

const HEADER: &str = "name,cpu,memory,gpus,gpu_milli,mig,models,arrival";
const ASKS: &str = "name,cpu,memory,mig,mps_memory,part_memory,part_compute,isolation,restartable,min_runtime,arrival";

#[test]
fn a_workload_is_refused_with_line_column_value_and_remedy() {
    let amounts = "needed are name, cpu, memory, arrival";
    let known = "known are name, namespace, priority, cpu, memory, gpus, gpu_milli, mig, models, arrival, lifetime, mps_memory, part_memory, \
                 part_compute, isolation, restartable, min_runtime";
    let ways = "ask in one way: for GPUs (gpus, gpu_milli), partitions (mig), a share under MPS (mps_memory) or a part (part_memory)";
    let cases = [
        (vec!["name,cpu,memory"], format!("w.csv:1: arrival: is missing from the header; {amounts}")),
        (vec!["name,cpu,memory,arrival,colour"], format!("w.csv:1: \"colour\" is no column of this format; {known}")),
        (vec!["name,cpu,memory,arrival,cpu"], "w.csv:1: cpu: is there twice; keep one of the columns".into()),
        (vec![HEADER], "w.csv: has no pods; add a line for each pod below the header".into()),
        (vec![HEADER, "a,1,1Gi"], "w.csv:2: has 3 values for 8 columns; give each column a value, empty where there is none".into()),
        (vec![HEADER, "a,1,1Gi,,,,,0", "a,1,1Gi,,,,,0"], "w.csv:3: name: \"a\" is the name of the pod in line 2 too; give each pod of a namespace its own name".into()),
        (vec![HEADER, ",1,1Gi,,,,,0"], "w.csv:2: name: is empty; give it a name".into()),
        (vec![HEADER, "a,,1Gi,,,,,0"], "w.csv:2: cpu: \"\" is not an amount of cpu; write cores, 2 or 0.5, or milli-cores, 500m".into()),
        (vec![HEADER, "a,1,1,,,,,0"], "w.csv:2: memory: \"1\" is not an amount of memory; write a number and a unit, such as 512Mi or 16Gi".into()),
        (vec![HEADER, "a,1000001,1Gi,,,,,0"], "w.csv:2: cpu: \"1000001\" is more cpu than any machine has; check the unit; the limit is 1000000 cores".into()),
        (vec![HEADER, "a,1,1025Ti,,,,,0"], "w.csv:2: memory: \"1025Ti\" is more memory than any machine has; check the unit; the limit is 1024Ti".into()),
        (vec![HEADER, "a,1,1Gi,65,,,,0"], "w.csv:2: gpus: \"65\" is too large for GPUs; the limit is 64".into()),
        (vec![HEADER, "a,1,1Gi,1,1001,,,0"], "w.csv:2: gpu_milli: \"1001\" is too large for milli-GPU; the limit is 1000".into()),
        (vec![HEADER, "a,1,1Gi,1,0,,,0"], "w.csv:2: gpu_milli: \"0\" is no share of a GPU; write 1 to 1000".into()),
        (vec![HEADER, "a,1,1Gi,,500,,,0"], "w.csv:2: gpu_milli: \"500\" is a share of no GPU; set gpus to 1".into()),
        (vec![HEADER, "a,1,1Gi,1,,1g.5gb,,0"], format!("w.csv:2: mig: \"1g.5gb\" is asked for beside 1 GPU; {ways}")),
        (vec![ASKS, "a,1,1Gi,2 1g.5gb,,,,,,,0"], "w.csv:2: mig: \"2 1g.5gb\" is no list of MIG partitions; write profiles as 1g.10gb, or as 2 x 1g.10gb + 3g.40gb".into()),
        (vec![ASKS, "a,1,1Gi,0 x 1g.5gb,,,,,,,0"], "w.csv:2: asks for 0 partitions 1g.5gb; ask for 1 to 127".into()),
        (vec![ASKS, "a,1,1Gi,,4,,,,,,0"], "w.csv:2: mps_memory: \"4\" is not an amount of memory; write a number and a unit, such as 512Mi or 16Gi".into()),
        (vec![ASKS, "a,1,1Gi,,4Gi,4Gi,,,,,0"], format!("w.csv:2: part_memory: \"4096 MiB and 0 % of a GPU, isolation shared or better\" is asked for beside an MPS share of 4096 MiB; {ways}")),
        (vec![ASKS, "a,1,1Gi,,,,10,,,,0"], "w.csv:2: part_memory: is missing from a row that asks for a part of a GPU; say how much memory it needs".into()),
        (vec![ASKS, "a,1,1Gi,,,4Gi,101,,,,0"], "w.csv:2: part_compute: \"101\" is too large for percent; the limit is 100".into()),
        (vec![ASKS, "a,1,1Gi,,,4Gi,,much,,,0"], "w.csv:2: isolation: \"much\" is no isolation; write hardware, memory or shared".into()),
        (vec![ASKS, "a,1,1Gi,,,,,,maybe,,0"], "w.csv:2: restartable: \"maybe\" is neither true nor false; write true or false".into()),
        (vec![ASKS, "a,1,1Gi,,,,,,,soon,0"], "w.csv:2: min_runtime: \"soon\" is not a time in seconds; write seconds since the start, such as 90 or 0.250".into()),
        (vec![HEADER, "a,1,1Gi,,,,T4,0"], "w.csv:2: names GPU models but asks for no GPU; drop the models or ask for a GPU".into()),
        (vec![HEADER, "a,1,1Gi,1,,,T4||A30,0"], "w.csv:2: models: \"T4||A30\" is empty; give it a name".into()),
        (vec![HEADER, "a,1,1Gi,,,,,soon"], "w.csv:2: arrival: \"soon\" is not a time in seconds; write seconds since the start, such as 90 or 0.250".into()),
        (vec![HEADER, "\"a\nb\",1,1Gi,,,,,0"], "w.csv:2: name: \"a\\nb\" has control characters, or blanks around it; remove them".into()),
        (vec![HEADER, "a,1,1Gi,,,,,0", "", "b,1x,1Gi,,,,,0"], "w.csv:4: cpu: \"1x\" is not an amount of cpu; write cores, 2 or 0.5, or milli-cores, 500m".into()),
        (vec!["", HEADER, "a,1,1Gi"], "w.csv:3: has 3 values for 8 columns; give each column a value, empty where there is none".into()),
        (vec!["", "colour"], format!("w.csv:2: \"colour\" is no column of this format; {known}")),
        (vec!["{\"name\":\"a\"}"], format!("w.csv:1: cpu: is missing; {amounts}")),
        (vec!["{\"name\":\"a\",\"name\":\"b\"}"], "w.csv:1: name: is there twice; keep one of the keys".into()),
        (vec!["{\"colour\":1}"], format!("w.csv:1: \"colour\" is no column of this format; {known}")),
        (vec!["{\"name\":{}}"], "w.csv:1: name: \"{}\" is no text, number or list of texts; write a plain value".into()),
        (vec!["", "{\"name\":"], "w.csv:2: \"{\\\"name\\\":\" character 8: is no JSON object: EOF while parsing a value; write one JSON object a line, such as {\"name\":\"a\",\"cpu\":\"2\",...}".into()),
    ];
    for (text, message) in cases {
        let error = Workload::parse("w.csv", &lines(&text)).unwrap_err().to_string();
        assert_eq!(error, message, "{text:?}");
        let windows = text.join("\r\n");
        assert_eq!(Workload::parse("w.csv", windows.as_bytes()).unwrap_err().to_string(), message, "{windows:?}");
    }
}

#[test]
fn a_workload_says_how_pods_ask() {
    let rows = [
        ASKS,
        "several,1,1Gi,2 x 1g.10gb+me + 3g.40gb,,,,,true,60,0",
        "mps,1,1Gi,,4G,,,,false,,0",
        "part,1,1Gi,,,10Gi,30,memory,,,0",
        "any,1,1Gi,,,10Gi,,,,,0",
    ];
    let workload = Workload::parse("w", &lines(&rows)).unwrap();
    let asks: Vec<String> = workload.pods.iter().map(|pod| pod.demand.gpu.to_string()).collect();
    let expected = [
        "2 x 1g.10gb+me + 3g.40gb",
        "an MPS share of 3815 MiB",
        "10240 MiB and 30 % of a GPU, isolation memory or better",
        "10240 MiB and 0 % of a GPU, isolation shared or better",
    ];
    assert_eq!(asks, expected);
    let terms = [0, 1].map(|row: usize| (workload.pods[row].terms.restartable, workload.pods[row].terms.min_runtime_ms));
    assert_eq!(terms, [(true, 60_000), (false, 0)]);
    let json = br#"{"name": "a", "cpu": 1, "memory": "1Gi", "part_memory": "1Gi", "part_compute": 5, "restartable": true, "arrival": 0}"#;
    let json = Workload::parse("w", json).unwrap();
    assert!(json.pods[0].terms.restartable && matches!(json.pods[0].demand.gpu, GpuAsk::Floor { compute: 5, .. }));
}

#[test]
fn a_cluster_says_what_may_be_done_to_its_gpus() {
    let text = "[[node]]\nname = \"n\"\ncpu = 1\nmemory = \"1Gi\"\npartitioning = \"time-slicing\"\n\
                gpus = { model = \"T4\", count = 1, cut = \"mps\" }\n";
    let cluster = Cluster::parse("c", text.as_bytes()).unwrap();
    assert_eq!((cluster.nodes[0].partitioning, cluster.nodes[0].gpus[0].cut), (Partitioning::TimeSlicing, Cut::Mps));
    assert_eq!(Cluster::parse("c", cluster.to_toml().unwrap().as_bytes()), Ok(cluster));
    let unknown = text.replace("time-slicing", "all");
    assert_eq!(
        cluster_error(unknown.as_bytes()),
        "c.toml:5: unknown variant `all`, expected one of `fixed`, `off`, `mig`, `mps`, `time-slicing`, `auto`; see FORMATS.md for the keys of a cluster"
    );
    let unknown_memory = format!("[[model]]\nname = \"X\"\n{}", text.replace("T4", "X"));
    assert_eq!(
        cluster_error(unknown_memory.as_bytes()),
        "c.toml:8: model: \"X\" is a model of unknown memory, which MPS cannot share; use cut = \"shares\", or describe it with [[model]] and memory_mib"
    );
}

#[test]
fn a_long_or_hostile_value_is_shown_short_and_harmless() {
    let long = "x".repeat(1000);
    let text = format!("name,cpu,memory,arrival\na,{long}\u{1b}[2J,1Gi,0\nb,1,1Gi,0");
    let error = Workload::parse("w\u{7}.csv", text.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("w\\u{{7}}.csv:2: cpu: \"{}…\" is not an amount of cpu; write cores, 2 or 0.5, or milli-cores, 500m", "x".repeat(60))
    );
    let escape = Workload::parse("w.csv", b"name,cpu,memory,arrival\na,\x1b[2J,1Gi,0").unwrap_err().to_string();
    assert!(escape.contains("\"\\u{1b}[2J\""), "{escape}");
}

#[test]
fn a_workload_is_ordered_by_time_and_has_defaults() {
    let text =
        lines(&["memory,name,arrival,cpu,gpus,mig,models", "1Gi,late,9.5,1,2,,", "1Gi,early,1,1,,1g.6gb,T4|A30", "1Gi,tie,9.5,1,,,"]);
    let workload = Workload::parse("w", &text).unwrap();
    let order: Vec<(u32, u64)> = workload.arrivals.iter().map(|arrival| (arrival.row, arrival.at_ms)).collect();
    assert_eq!(order, [(1, 1000), (0, 9500), (2, 9500)]);
    let [late, early, tie] = &workload.pods[..] else { panic!("three pods") };
    assert_eq!((late.namespace.as_str(), late.priority), ("default", 0));
    assert_eq!(late.demand.gpu, GpuAsk::Share { count: 2, milli: 1000 });
    assert_eq!((&early.demand.gpu, early.demand.models.len()), (&GpuAsk::mig("1g.6gb"), 2));
    assert_eq!(tie.demand.gpu, GpuAsk::None);
    assert!(workload.arrivals.iter().all(|arrival| arrival.lifetime_ms.is_none()));
}

const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model";
const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,scheduled_time";

#[test]
fn openb_tables_are_refused_with_line_column_value_and_remedy() {
    let nodes = [
        (vec![NODES], "n.csv: has no nodes; add a line for each node below the header"),
        (
            vec!["sn,cpu_milli,memory_mib,gpu"],
            "n.csv:1: model: is missing from the header; needed are sn, cpu_milli, memory_mib, gpu, model",
        ),
        (vec![NODES, "a,1,1,1,T4", "a,1,1,1,T4"], "n.csv:3: sn: \"a\" is the name of an earlier node too; give each node its own name"),
        (vec![NODES, "a,1.5,1,1,T4"], "n.csv:2: cpu_milli: \"1.5\" is not a whole number of milli-cores; write 0 to 1000000000"),
        (vec![NODES, "a,1000000001,1,1,T4"], "n.csv:2: cpu_milli: \"1000000001\" is too large for milli-cores; the limit is 1000000000"),
        (vec![NODES, "a,1,1073741825,1,T4"], "n.csv:2: memory_mib: \"1073741825\" is too large for MiB; the limit is 1073741824"),
        (vec![NODES, "a,1,1,65,T4"], "n.csv:2: gpu: \"65\" is too large for GPUs; the limit is 64"),
        (vec![NODES, "a,1,1,1,"], "n.csv:2: model: is empty; give it a name"),
    ];
    for (text, message) in nodes {
        assert_eq!(openb::parse_nodes("n.csv", &lines(&text)).unwrap_err().to_string(), message, "{text:?}");
    }
    let pods = [
        (vec![PODS], "p.csv: has no pods; add a line for each pod below the header"),
        (vec![PODS, "a,1,1,0,500,,0,1,0"], "p.csv:2: gpu_milli: \"500\" is a share of no GPU; set num_gpu to 1"),
        (vec![PODS, "a,1,1,1,0,,0,1,0"], "p.csv:2: gpu_milli: \"0\" is no share of a GPU; write 1 to 1000"),
        (
            vec![PODS, "a,1000000001,1,0,0,,0,1,0"],
            "p.csv:2: cpu_milli: \"1000000001\" is too large for milli-cores; the limit is 1000000000",
        ),
        (vec![PODS, "a,1,1,1,500,,5,4,"], "p.csv:2: deletion_time: \"4\" is before the pod started; correct the times"),
        (
            vec![PODS, "a,1,1,1,500,,,4,"],
            "p.csv:2: creation_time: is not given, and the times of the trace are asked for; use --times order",
        ),
        (
            vec![PODS, "a,1,1,1,500,,0,x,"],
            "p.csv:2: deletion_time: \"x\" is not a time in seconds; write seconds since the start, such as 90 or 0.250",
        ),
    ];
    for (text, message) in pods {
        assert_eq!(openb::parse_pods("p.csv", &lines(&text), Times::Trace).unwrap_err().to_string(), message, "{text:?}");
    }
    let arrivals = [
        ("\n0 1", "a.txt:1: names no row; write the row numbers, from 0, in the order of arrival"),
        ("0 x", "a.txt:1: number 2: \"x\" is not a whole number of arrivals; write 0 to 4294967295"),
        ("0\n0 2", "a.txt:2: \"2\" is the rank of node 1, beyond the number of nodes; give the 2 nodes the ranks 0 to 1, each once"),
        ("0\n0 0", "a.txt:2: \"0\" is the rank of node 1 and of an earlier one; give the 2 nodes the ranks 0 to 1, each once"),
        ("0\n0\n\n7", "a.txt:4: is a line too many; line 1 is the order of rows, line 2 the ranks of nodes"),
    ];
    for (text, message) in arrivals {
        assert_eq!(openb::parse_arrivals("a.txt", text.as_bytes()).unwrap_err().to_string(), message, "{text:?}");
    }
}

#[test]
fn openb_times_are_those_of_the_trace_or_an_order() {
    let text = lines(&[PODS, "a,1,1,1,500,,7,20,10", "b,1,1,0,0,T4,3,8,", "c,1,1,1,1000,T4|P100|T4,3,,"]);
    let trace = openb::parse_pods("p", &text, Times::Trace).unwrap();
    let times: Vec<(u32, u64, Option<u64>)> = trace.arrivals.iter().map(|one| (one.row, one.at_ms, one.lifetime_ms)).collect();
    assert_eq!(times, [(1, 3000, Some(5000)), (2, 3000, None), (0, 7000, Some(10_000))]);
    assert_eq!(trace.pods[1].demand.models, [""; 0], "models of a pod without GPU mean nothing");
    assert_eq!(trace.pods[2].demand.models, ["P100", "T4"]);
    let short = lines(&["name,cpu_milli,memory_mib,num_gpu,gpu_milli", "a,1,1,1,500", "b,1,1,0,0"]);
    let order = openb::parse_pods("p", &short, Times::Order).unwrap();
    assert_eq!(order.arrivals.iter().map(|one| one.at_ms).collect::<Vec<_>>(), [0, 1000]);
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

#[test]
fn formats_are_told_apart_by_their_first_line() {
    let folder = Folder::new("formats");
    let nodes = folder.file("nodes.txt", &format!("{NODES}\nb,1000,1,1,T4\na,1000,1,1,G9\n"));
    let pods = folder.file("pods.txt", "name,cpu_milli,memory_mib,num_gpu,gpu_milli\nx,1,1,1,500\ny,1,1,0,0\n");
    let arrivals = folder.file("arrivals.txt", "1 0 1\n1 0\n");
    let toml = folder.file("cluster.csv", "[[node]]\nname = \"n\"\ncpu = 1\nmemory = \"1Gi\"\n");
    let own = folder.file("own.txt", "\u{feff}name,cpu,memory,arrival\na,1,1Gi,0\n");
    let json = folder.file("own.csv", "{\"name\":\"a\",\"cpu\":1,\"memory\":\"1Gi\",\"arrival\":0}\n");

    let (cluster, workload) = load(&nodes, &pods, Some(&arrivals), Times::Trace).unwrap();
    assert_eq!(cluster.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b", "a"], "in order of their ranks");
    assert_eq!(workload.arrivals.iter().map(|one| (one.row, one.at_ms)).collect::<Vec<_>>(), [(1, 0), (0, 1000), (1, 2000)]);
    assert_eq!((cluster.name.as_str(), workload.name.as_str()), ("nodes.txt", "pods.txt"));
    for workload in [&own, &json] {
        let (cluster, workload) = load(&toml, workload, None, Times::Order).unwrap();
        assert_eq!((cluster.nodes.len(), workload.pods.len()), (1, 1));
    }
}

#[test]
fn a_huge_file_is_refused_before_it_is_read_whole() {
    let folder = Folder::new("huge");
    let small = folder.file("small.csv", "name,cpu,memory,arrival\na,1,1Gi,0\n");
    let huge = folder.file("huge", "");
    fs::OpenOptions::new().write(true).open(&huge).unwrap().set_len(1 << 40).unwrap();
    let as_cluster = load(&huge, &small, None, Times::Order).unwrap_err().to_string();
    assert!(
        as_cluster.ends_with("huge: is larger than 4 MiB, the limit for this kind of file; split it, or check that it is the file meant"),
        "{as_cluster}"
    );
    let cluster = folder.file("c.toml", "[[node]]\nname = \"n\"\ncpu = 1\nmemory = \"1Gi\"\n");
    let as_workload = load(&cluster, &huge, None, Times::Order).unwrap_err().to_string();
    assert!(as_workload.contains("huge: is larger than 64 MiB"), "{as_workload}");
    fs::remove_file(huge).unwrap();
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let folder = Folder::new("mismatch");
    let nodes = folder.file("nodes.csv", &format!("{NODES}\na,1000,1,1,T4\n"));
    let pods = folder.file("pods.csv", "name,cpu_milli,memory_mib,num_gpu,gpu_milli\nx,1,1,1,500\n");
    let message = |arrivals: &str| {
        let arrivals = folder.file("arrivals.txt", arrivals);
        load(&nodes, &pods, Some(&arrivals), Times::Order).unwrap_err()
    };
    assert!(matches!(message("0\n0 1"), SimError::Ranks { ranks: 2, nodes: 1, .. }));
    let beyond = message("0 0 4").to_string();
    assert!(
        beyond.ends_with("arrivals.txt:1: \"4\" is place 3 of the order, and pods.csv has 1 pods; use the arrivals file of this workload"),
        "{beyond}"
    );
    let missing = load(&folder.0.join("none.toml"), &pods, None, Times::Order).unwrap_err();
    assert!(missing.to_string().ends_with("none.toml: cannot be read"), "{missing}");
    // Who prints the chain of causes says each of them once.
    let source = missing.source().unwrap().to_string();
    assert!(!missing.to_string().contains(&source), "{missing}: {source}");
}

#[test]
fn a_cluster_and_a_workload_in_each_others_place_are_told() {
    let folder = Folder::new("swapped");
    let node = "[[node]]\nname = \"n\"\ncpu = 1\nmemory = \"1Gi\"\n";
    let clusters = [
        folder.file("plain.toml", node),
        folder.file("commented.toml", &format!("\u{feff}\n# Our cluster, name,cpu,arrival\n\n{node}")),
        folder.file("nodes.csv", &format!("{NODES}\na,1000,1,1,T4\n")),
    ];
    let workloads = [
        folder.file("own.csv", "name,cpu,memory,arrival\na,1,1Gi,0\n"),
        folder.file("quoted.csv", "\"memory\", \"name\", \"cpu\"\r\n1Gi,a,1\r\n"),
        folder.file("own.jsonl", "\n{\"name\":\"a\",\"cpu\":1,\"memory\":\"1Gi\",\"arrival\":0}\n"),
        folder.file("pods.csv", "name,cpu_milli,memory_mib,num_gpu,gpu_milli\nx,1,1,1,500\n"),
        // Larger than a cluster may be: what it is matters more than its size.
        folder.file("large.csv", &format!("name,cpu,memory,arrival\n{}", " ".repeat(text::CLUSTER_MAX))),
    ];
    let message = |cluster, workload| load(cluster, workload, None, Times::Order).unwrap_err().to_string();
    for workload in &workloads {
        let told = message(workload, workload);
        assert_eq!(told, format!("{}: looks like a workload; are --cluster and --workload swapped?", workload.display()));
    }
    for cluster in &clusters {
        let told = message(cluster, cluster);
        assert_eq!(told, format!("{}: looks like a cluster; are --cluster and --workload swapped?", cluster.display()));
    }
}

#[test]
fn a_cluster_has_so_many_models_and_keeps_them_apart() {
    let model = |row: usize| format!("[[model]]\nname = \"m{row}\"\n");
    let node = "[[node]]\nname = \"n\"\ncpu = 1\nmemory = \"1Gi\"\n";
    let models = |count: usize| (0..count).map(model).collect::<String>();
    let full = format!("{}{node}", models(MODELS_MAX));
    assert_eq!(Cluster::parse("c", full.as_bytes()).unwrap().models.len(), MODELS_MAX);
    let more = format!("{}{node}", models(65_541));
    assert_eq!(cluster_error(more.as_bytes()), "c.toml:2049: model: \"m1024\" is beyond the limit of 1024 GPU models; describe fewer");
    let built_in = format!("{full}gpus = {{ model = \"T4\", count = 1 }}\n");
    assert_eq!(cluster_error(built_in.as_bytes()), "c.toml:2053: model: \"T4\" is beyond the limit of 1024 GPU models; describe fewer");
    let openb: Vec<String> = (0..=MODELS_MAX).map(|row| format!("n{row},1,1,1,m{row}")).collect();
    let error = openb::parse_nodes("n.csv", format!("{NODES}\n{}", openb.join("\n")).as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "n.csv:1026: model: \"m1024\" is beyond the limit of 1024 GPU models; describe fewer");
}

#[test]
fn a_grid_with_aliases_and_engines_survives_being_written() {
    let node = |model: &str| {
        format!("[[node]]\nname = \"{model}\"\ncpu = 1\nmemory = \"1Gi\"\ngpus = {{ model = \"{model}\", count = 1, cut = \"mig\" }}\n")
    };
    let text = node("RTX-PRO-6000-Blackwell-96GB") + &node("A100-80GB");
    let cluster = Cluster::parse("c", text.as_bytes()).unwrap();
    let grids: Vec<_> = cluster.models.iter().filter_map(|model| model.grid.as_ref()).collect();
    let [eight, twelve] = grids[..] else { panic!("two grids") };
    assert!(twelve.slots == 12 && !twelve.engines.is_none() && twelve.profiles.iter().any(|profile| !profile.engines.is_none()));
    assert!(eight.profiles.iter().any(|profile| !profile.aliases.is_empty()));
    let written = cluster.to_toml().unwrap();
    assert!(written.contains("[model.grid.engines]") && written.contains("7g.79gb"), "{written}");
    assert_eq!(Cluster::parse("c", written.as_bytes()), Ok(cluster));
}

//! The bundled sample: a mixed cluster and a working day of five teams, made up but shaped like real ones.
//!
//! 2,000 pods come between 07:00 and 19:00, most before and after noon, some in sweeps of several at once; services stay, jobs end. The
//! cluster has room for the day as a whole but not for its peaks, so that what a policy wastes shows as waiting. All numbers come from
//! integers and tables, none from floating-point functions, so that every machine makes the same bytes.

use std::fmt::Write as _;

use crate::{Cluster, InputError, Workload, random::SplitMix64};

/// The sample's cluster, as `cluster.toml`.
pub const CLUSTER: &str = include_str!("../sample/cluster.toml");
/// The sample's workload, as `workload.csv`: what [`generate`] makes of [`SEED`].
pub const WORKLOAD: &str = include_str!("../sample/workload.csv");
/// Seed of the bundled workload.
pub const SEED: u64 = 1;
/// Pods of a workload.
pub const PODS: usize = 2000;

/// The bundled sample, read.
///
/// # Errors
/// None for the files bundled; the type is that of the readers.
pub fn bundled() -> Result<(Cluster, Workload), InputError> {
    Ok((Cluster::parse("sample cluster", CLUSTER.as_bytes())?, Workload::parse("sample workload", WORKLOAD.as_bytes())?))
}

/// The two files of a sample: the cluster, the same for every seed, and the day that `seed` makes.
#[must_use]
pub fn generate(seed: u64) -> (String, String) {
    let mut random = SplitMix64(seed);
    let mut rows: Vec<(u64, String)> = KINDS.iter().flat_map(|kind| kind.rows(&mut random)).collect();
    rows.sort();
    let mut csv = String::from("name,namespace,priority,cpu,memory,gpus,gpu_milli,mig,models,arrival,lifetime\n");
    for (_, row) in rows {
        csv.push_str(&row);
        csv.push('\n');
    }
    (CLUSTER.to_owned(), csv)
}

/// What a pod asks for, and how often among those of its kind.
struct Ask {
    weight: u64,
    /// Cpu, memory, gpus, `gpu_milli`, mig, models: fields of a row.
    fields: &'static str,
}

/// A kind of job of one team.
struct Kind {
    namespace: &'static str,
    name: &'static str,
    pods: usize,
    priority: i32,
    asks: &'static [Ask],
    /// Minutes: a lifetime lies between two neighbours, each gap equally likely, so that rows far apart make a long tail. Empty: it stays.
    minutes: &'static [u64],
    /// How likely a new pod is in each half hour of the day; empty for the first ten minutes only.
    day: &'static [u64],
    /// The most pods that come together.
    sweep: u64,
}

const fn ask(weight: u64, fields: &'static str) -> Ask {
    Ask { weight, fields }
}

/// People at work, from 07:00: a peak before noon, a dip at lunch, a peak after.
const OFFICE: &[u64] = &[1, 3, 6, 10, 14, 16, 15, 13, 10, 7, 7, 10, 14, 15, 14, 12, 10, 7, 5, 3, 2, 2, 1, 1];
/// Users of services: later and flatter.
const USERS: &[u64] = &[3, 4, 6, 8, 9, 10, 10, 10, 9, 9, 9, 10, 10, 10, 10, 9, 9, 9, 8, 8, 7, 6, 5, 4];
const HALF_HOUR: u64 = 1800;

const KINDS: &[Kind] = &[
    Kind {
        namespace: "chat",
        name: "gateway",
        pods: 48,
        priority: 100,
        asks: &[ask(3, "4,16Gi,,,2g.20gb,A100-80GB|H100-80GB"), ask(2, "8,32Gi,,,3g.40gb,A100-80GB|H100-80GB")],
        minutes: &[],
        day: &[],
        sweep: 4,
    },
    Kind {
        namespace: "chat",
        name: "replica",
        pods: 350,
        priority: 100,
        asks: &[
            ask(4, "2,8Gi,,,1g.10gb,A100-80GB|H100-80GB"),
            ask(3, "4,16Gi,,,2g.20gb,A100-80GB|H100-80GB"),
            ask(3, "4,24Gi,,,1g.20gb,A100-80GB|H100-80GB"),
            ask(3, "8,48Gi,,,3g.40gb,A100-80GB|H100-80GB"),
        ],
        minutes: &[45, 90, 150, 220, 330, 540],
        day: USERS,
        sweep: 6,
    },
    Kind {
        namespace: "vision",
        name: "infer",
        pods: 350,
        priority: 100,
        asks: &[ask(4, "1,4Gi,1,250,,T4"), ask(3, "2,6Gi,1,400,,T4"), ask(2, "2,8Gi,1,600,,T4"), ask(2, "2,8Gi,,,1g.6gb,A30")],
        minutes: &[40, 80, 130, 200, 320, 540],
        day: USERS,
        sweep: 5,
    },
    Kind {
        namespace: "research",
        name: "notebook",
        pods: 430,
        priority: 50,
        asks: &[
            ask(4, "2,8Gi,1,200,,T4"),
            ask(4, "4,16Gi,,,1g.6gb,A30"),
            ask(3, "4,16Gi,,,2g.12gb,A30"),
            ask(4, "4,24Gi,,,1g.10gb,A100-80GB"),
            ask(2, "8,32Gi,,,2g.20gb,A100-80GB"),
        ],
        minutes: &[20, 60, 110, 180, 290, 510],
        day: OFFICE,
        sweep: 1,
    },
    Kind {
        namespace: "research",
        name: "finetune",
        pods: 310,
        priority: 0,
        asks: &[
            ask(4, "8,64Gi,,,3g.40gb,A100-80GB"),
            ask(2, "8,64Gi,,,4g.40gb,A100-80GB"),
            ask(3, "12,96Gi,,,7g.80gb,A100-80GB|H100-80GB"),
            ask(2, "8,48Gi,,,4g.24gb,A30"),
        ],
        minutes: &[20, 50, 90, 140, 210, 360],
        day: OFFICE,
        sweep: 6,
    },
    // Asks for a partition of a card that the cluster does not have: waits for ever, and the report says why.
    Kind {
        namespace: "research",
        name: "legacy",
        pods: 4,
        priority: 0,
        asks: &[ask(1, "4,16Gi,,,1g.5gb,A100-40GB")],
        minutes: &[60, 120],
        day: OFFICE,
        sweep: 2,
    },
    Kind {
        namespace: "training",
        name: "train",
        pods: 258,
        priority: 0,
        asks: &[
            ask(12, "16,128Gi,1,,,H100-80GB"),
            ask(8, "32,256Gi,2,,,H100-80GB"),
            ask(4, "64,512Gi,4,,,H100-80GB"),
            ask(1, "128,1024Gi,8,,,H100-80GB"),
        ],
        minutes: &[8, 20, 36, 62, 105, 200],
        day: OFFICE,
        sweep: 4,
    },
    Kind {
        namespace: "data",
        name: "prepare",
        pods: 250,
        priority: 0,
        asks: &[ask(5, "4,16Gi,,,,"), ask(3, "8,32Gi,,,,"), ask(2, "16,64Gi,,,,")],
        minutes: &[3, 8, 15, 25, 40, 90],
        day: OFFICE,
        sweep: 12,
    },
];

impl Kind {
    fn rows(&self, random: &mut SplitMix64) -> Vec<(u64, String)> {
        let mut rows = Vec::with_capacity(self.pods);
        while rows.len() < self.pods {
            let start = self.arrival(random);
            let fields = self.asks[random.weighted(self.asks.iter().map(|ask| ask.weight))].fields;
            // A sweep is one job with other parameters: its pods ask for the same and come within a minute.
            for _ in 0..random.between(1, self.sweep).min((self.pods - rows.len()) as u64) {
                let at = start + random.below(60);
                let mut row = format!("{}-{:04},{},{},{fields},{at},", self.name, rows.len(), self.namespace, self.priority);
                if !self.minutes.is_empty() {
                    let gap = random.below(self.minutes.len() as u64 - 1) as usize;
                    let _ = write!(row, "{}", random.between(self.minutes[gap] * 60, self.minutes[gap + 1] * 60));
                }
                rows.push((at, row));
            }
        }
        rows
    }

    fn arrival(&self, random: &mut SplitMix64) -> u64 {
        if self.day.is_empty() {
            return random.below(600);
        }
        let slot = random.weighted(self.day.iter().copied()) as u64;
        slot * HALF_HOUR + random.below(HALF_HOUR)
    }
}

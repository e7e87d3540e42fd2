//! The tables of the catalog.
//!
//! Sources, by which each block is marked:
//! - G: NVIDIA MIG User Guide, "Supported MIG Profiles": names, slices, counts, engines.
//! - C: output of `nvidia-smi mig -lgip` and `-lgipp` that people published: first slots, MiB.
//! - K: Kubernetes enhancement 4815, which prints an A100-40's placements and engines.
//! - P: NVIDIA's mig-parted, whose default configuration lists counts by PCI id.
//! - I: inferred: the model has eight slots like those for which C exists.
//! - S: the total that `nvidia-smi` prints for the GPU, from published output.
//!
//! MiB are what some driver reported and may differ by some between versions; 0 where nobody published them.

use crate::model::Engines;

/// (name, compute slices, memory slots, MiB, first slots, most on one GPU, [decoder, encoder, jpeg, ofa])
pub(super) type Row = (&'static str, u8, u8, u32, &'static [u8], u8, [u8; 4]);
/// (compute slices, memory slots, first slots, most on one GPU, suffix, index of label and MiB)
pub(super) type Shape = (u8, u8, &'static [u8], u8, &'static str, usize);

/// A GPU model.
pub(super) struct Model {
    /// Its names: products that differ in nothing that is told here share a row.
    pub(super) names: &'static [&'static str],
    /// Memory, MiB; 0 where unknown.
    pub(super) memory_mib: u32,
    /// How MIG cuts it.
    pub(super) table: Table,
}

/// How MIG cuts a model.
pub(super) enum Table {
    /// Not at all.
    None,
    /// Into these profiles, but only a driver knows where they lie.
    Driver(&'static [&'static str]),
    /// Like all models with eight slots.
    Eight(Eight),
    /// Into these profiles.
    Rows { slots: u8, compute: u8, engines: Engines, rows: &'static [Row] },
}

/// What tells models with eight slots apart.
pub(super) struct Eight {
    /// The memory in the names: of 1g, of its double and 2g, of 3g and 4g, of 7g.
    pub(super) gb: [u16; 4],
    /// MiB of the same.
    pub(super) mib: [u32; 4],
    /// Media engines.
    pub(super) media: Media,
    /// (our name, another driver's).
    pub(super) aliases: &'static [(&'static str, &'static str)],
}

/// [decoder, jpeg, ofa] of each row of [`EIGHT`].
pub(super) enum Media {
    Unknown,
    Known(&'static [[u8; 3]; 7]),
}

/// The geometry of every model with eight slots (G, C, K). 4g starts at 0 only, so 4g and 3g fit together but 3g at 0 blocks 4g.
pub(super) const EIGHT: &[Shape] = &[
    (1, 1, &[0, 1, 2, 3, 4, 5, 6], 7, "", 0),
    (1, 1, &[0, 1, 2, 3, 4, 5, 6], 1, "+me", 0),
    (1, 2, &[0, 2, 4, 6], 4, "", 1),
    (2, 2, &[0, 2, 4], 3, "", 1),
    (3, 4, &[0, 4], 2, "", 2),
    (4, 4, &[0], 1, "", 2),
    (7, 8, &[0], 1, "", 3),
];

/// G, K.
const AMPERE: Media = Media::Known(&[[0, 0, 0], [1, 1, 1], [1, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 0], [5, 1, 1]]);
/// G.
const HOPPER: Media = Media::Known(&[[1, 1, 0], [1, 1, 1], [1, 1, 0], [2, 2, 0], [3, 3, 0], [4, 4, 0], [7, 7, 1]]);

const fn eight(gb: [u16; 4], mib: [u32; 4], media: Media) -> Table {
    Table::Eight(Eight { gb, mib, media, aliases: &[] })
}

/// G, C, P. The guide does not list the engines; 1g+me and 2g+me share the only set.
const A30: &[Row] = &[
    ("1g.6gb", 1, 1, 5949, &[0, 1, 2, 3], 4, [0; 4]),
    ("1g.6gb+me", 1, 1, 5949, &[0, 1, 2, 3], 1, [0; 4]),
    ("2g.12gb", 2, 2, 11_971, &[0, 2], 2, [0; 4]),
    ("2g.12gb+me", 2, 2, 11_971, &[0, 2], 1, [0; 4]),
    ("4g.24gb", 4, 4, 24_003, &[0], 1, [0; 4]),
];

const QUARTERS: &[u8] = &[0, 3, 6, 9];
const HALVES: &[u8] = &[0, 6];

/// G, C. Twelve slots; `+me.all` takes all engines and so lies beside `-me` only.
const RTX_PRO_6000: &[Row] = &[
    ("1g.24gb", 1, 3, 24_187, QUARTERS, 4, [1, 1, 1, 0]),
    ("1g.24gb+me", 1, 3, 24_187, QUARTERS, 1, [1, 1, 1, 1]),
    ("1g.24gb+gfx", 1, 3, 24_187, QUARTERS, 4, [1, 1, 1, 0]),
    ("1g.24gb+me.all", 1, 3, 24_187, QUARTERS, 1, [4, 4, 4, 1]),
    ("1g.24gb-me", 1, 3, 24_187, QUARTERS, 4, [0; 4]),
    ("2g.48gb", 2, 6, 48_517, HALVES, 2, [2, 2, 2, 0]),
    ("2g.48gb+gfx", 2, 6, 48_517, HALVES, 2, [2, 2, 2, 0]),
    ("2g.48gb+me.all", 2, 6, 48_517, HALVES, 1, [4, 4, 4, 1]),
    ("2g.48gb-me", 2, 6, 48_517, HALVES, 2, [0; 4]),
    ("4g.96gb", 4, 12, 97_403, &[0], 1, [4, 4, 4, 1]),
    ("4g.96gb+gfx", 4, 12, 97_403, &[0], 1, [4, 4, 4, 1]),
];

/// Every model; the first name is the one in lists.
pub(super) const MODELS: &[Model] = &[
    Model {
        names: &["A30", "A30-24GB"],
        memory_mib: 24_576,
        table: Table::Rows { slots: 4, compute: 4, engines: Engines::NONE, rows: A30 },
    },
    // G, C, K, P.
    Model { names: &["A100-40GB"], memory_mib: 40_960, table: eight([5, 10, 20, 40], [4864, 9856, 19_968, 40_192], AMPERE) },
    // G, C, P. Drivers 535 and 545 print the other names for the same ids.
    Model {
        names: &["A100-80GB"],
        memory_mib: 81_920,
        table: Table::Eight(Eight {
            gb: [10, 20, 40, 80],
            mib: [9856, 19_968, 40_192, 80_384],
            media: AMPERE,
            aliases: &[("3g.40gb", "3g.39gb"), ("7g.80gb", "7g.79gb")],
        }),
    },
    // G, C, P, S. H800 is cut alike.
    Model {
        names: &["H100-80GB", "H800-80GB"],
        memory_mib: 81_559,
        table: eight([10, 20, 40, 80], [9984, 20_091, 40_448, 81_152], HOPPER),
    },
    // G, C, P, S.
    Model { names: &["H100-NVL-94GB"], memory_mib: 95_830, table: eight([12, 24, 47, 94], [0, 0, 47_493, 95_355], HOPPER) },
    // G, P, I, S.
    Model { names: &["H100-96GB", "GH200-96GB", "H20-96GB"], memory_mib: 97_871, table: eight([12, 24, 48, 96], [0; 4], HOPPER) },
    // G, C, P, S.
    Model {
        names: &["H200-141GB", "H20-141GB"],
        memory_mib: 143_771,
        table: eight([18, 35, 71, 141], [16_384, 33_024, 71_168, 143_360], HOPPER),
    },
    // G, P, I.
    Model { names: &["GH200-144GB"], memory_mib: 0, table: eight([18, 36, 72, 144], [17_920, 36_096, 0, 0], HOPPER) },
    // G, C, S. The guide gives no engines beyond those of 1g.
    Model { names: &["B200-180GB"], memory_mib: 183_359, table: eight([23, 45, 90, 180], [22_528, 45_312, 0, 0], Media::Unknown) },
    // G, C, S. Early drivers print the other names for the same ids; that of 1g+me follows, since names are made from sizes.
    Model {
        names: &["GB200-186GB"],
        memory_mib: 189_471,
        table: Table::Eight(Eight {
            gb: [23, 47, 93, 186],
            mib: [22_528, 46_592, 0, 0],
            media: Media::Unknown,
            aliases: &[
                ("1g.23gb", "1g.24gb"),
                ("1g.23gb+me", "1g.24gb+me"),
                ("3g.93gb", "3g.95gb"),
                ("4g.93gb", "4g.95gb"),
                ("7g.186gb", "7g.189gb"),
            ],
        }),
    },
    // G, I.
    Model { names: &["B300-269GB"], memory_mib: 0, table: eight([34, 67, 135, 269], [0; 4], Media::Unknown) },
    // G, C.
    Model { names: &["GB300-278GB"], memory_mib: 0, table: eight([35, 70, 139, 278], [35_584, 0, 0, 0], Media::Unknown) },
    // S.
    Model {
        names: &["RTX-PRO-6000-Blackwell-96GB"],
        memory_mib: 97_887,
        table: Table::Rows { slots: 12, compute: 4, engines: Engines { decoder: 4, encoder: 4, jpeg: 4, ofa: 1 }, rows: RTX_PRO_6000 },
    },
    // G only, for these three.
    Model {
        names: &["RTX-PRO-5000-Blackwell-48GB"],
        memory_mib: 0,
        table: Table::Driver(&["1g.24gb", "1g.24gb+me", "1g.24gb+gfx", "1g.24gb+me.all", "1g.24gb-me", "2g.48gb", "2g.48gb+gfx"]),
    },
    Model {
        names: &["RTX-PRO-4500-Blackwell-32GB"],
        memory_mib: 0,
        table: Table::Driver(&["1g.16gb", "1g.16gb+gfx", "1g.16gb+me.all", "1g.16gb-me", "2g.32gb", "2g.32gb+gfx"]),
    },
    Model {
        names: &["Thor-iGPU"],
        memory_mib: 0,
        table: Table::Driver(&["1g.0gb", "1g.0gb+me", "1g.0gb+gfx", "2g.0gb", "2g.0gb+gfx", "3g.0gb", "3g.0gb+gfx"]),
    },
    Model { names: &["T4"], memory_mib: 15_360, table: Table::None },
];

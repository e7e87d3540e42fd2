//! Numbers for things that have names: dense, so that they index vectors, and ordered, so that ties have one answer.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u32);

        impl $name {
            /// The number as an index.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// The id of row `index`.
            ///
            /// # Panics
            /// Beyond 2^32 rows, which no limit of this crate allows.
            #[must_use]
            pub fn new(index: usize) -> Self {
                Self(u32::try_from(index).expect("row numbers fit u32"))
            }
        }
    };
}

id!(
    /// A GPU model of the cluster.
    ModelId
);
id!(
    /// A MIG profile of one model.
    ProfileId
);
id!(
    /// A node; the order of ids is the fixed order that breaks ties.
    NodeId
);
id!(
    /// A pod.
    PodId
);
id!(
    /// A demand class: every pod that asks for exactly the same shares it.
    DemandId
);

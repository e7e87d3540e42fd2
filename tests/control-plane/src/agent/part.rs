//! Parts of a GPU as grants and layouts name them, read without help from the scheduler.

use std::fmt;

use partita_core::model::ProfileName;
use partita_kube::{
    crd::{DesiredPartition, FoundPartition},
    translate::keys::{GPU, MIG_PREFIX, MPS_PREFIX, WHOLE_GPU},
};

/// The most thousandths that pods may have of one GPU.
pub(super) const MILLI: u32 = 1000;

/// A part of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A MIG partition.
    Mig {
        /// Its profile, by name.
        profile: String,
        /// Its first slot.
        start: u8,
    },
    /// A share of so many MiB under MPS.
    Mps(u32),
    /// Thousandths of the GPU by time-slicing; 1000 is all of it.
    Share(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mig { profile, start } => write!(formatter, "{profile} at slot {start}"),
            Self::Mps(memory_mib) => write!(formatter, "{memory_mib} MiB under MPS"),
            Self::Share(milli) => write!(formatter, "{milli} thousandths"),
        }
    }
}

impl Part {
    /// What a layout wants; none if it says nothing that can be.
    pub(super) fn wanted(partition: &DesiredPartition) -> Option<Self> {
        match (&partition.profile, partition.memory_mib, partition.milli) {
            (Some(profile), None, None) => Some(Self::Mig { profile: profile.clone(), start: partition.start? }),
            (None, Some(memory_mib), None) => Some(Self::Mps(memory_mib)),
            (None, None, Some(milli)) => Some(Self::Share(milli)),
            _ => None,
        }
    }

    /// What a report says is there.
    pub(super) fn reported(partition: &FoundPartition) -> Option<Self> {
        match (&partition.profile, partition.memory_mib) {
            (Some(profile), _) => Some(Self::Mig { profile: profile.clone(), start: partition.start? }),
            (None, Some(memory_mib)) => Some(Self::Mps(memory_mib)),
            (None, None) => partition.milli.map(Self::Share),
        }
    }

    /// The resource under which it is offered if nobody says otherwise.
    pub(super) fn resource(&self) -> String {
        match self {
            Self::Mig { profile, .. } => {
                ProfileName::parse(profile).map_or_else(|_| format!("{MIG_PREFIX}{profile}"), |name| name.resource())
            }
            Self::Mps(memory_mib) => format!("{MPS_PREFIX}{}gb", memory_mib / 1024),
            Self::Share(MILLI) => WHOLE_GPU.to_owned(),
            Self::Share(_) => GPU.to_owned(),
        }
    }
}

/// What a pod was given, by index of the GPU: `0:1g.10gb@3,1:500m,2:mps/10240`. None if the text is no grant.
pub(super) fn grant(text: &str) -> Option<Vec<(u8, Part)>> {
    let one = |text: &str| {
        let (index, what) = text.split_once(':')?;
        let part = if let Some((profile, start)) = what.split_once('@') {
            Part::Mig { profile: profile.to_owned(), start: start.parse().ok()? }
        } else if let Some(memory) = what.strip_prefix("mps/") {
            Part::Mps(memory.parse().ok()?)
        } else {
            Part::Share(what.strip_suffix('m')?.parse().ok()?)
        };
        Some((index.parse().ok()?, part))
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_or_it_is_none() {
        let mig = |profile: &str, start| Part::Mig { profile: profile.to_owned(), start };
        let parts = vec![(0, mig("1g.10gb", 3)), (0, mig("1g.10gb+me", 4)), (1, Part::Share(500)), (2, Part::Mps(10_240))];
        assert_eq!(grant("0:1g.10gb@3,0:1g.10gb+me@4,1:500m,2:mps/10240"), Some(parts));
        for wrong in ["", "0", "0:500", "x:500m", "0:1g.10gb@", "0:mps/", "0:500m,"] {
            assert_eq!(grant(wrong), None, "{wrong:?}");
        }
    }
}

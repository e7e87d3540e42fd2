//! Handles: to programs pointers to nothing, to us numbers that say what they mean. Nothing is ever read through one.

/// What a handle stands for. GPUs are named by their place in the folder, which never changes. A serial number tells an instance from a
/// later one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    Gpu {
        gpu: usize,
    },
    /// A MIG device, by its index on the GPU: handles are given again, as drivers do.
    Mig {
        gpu: usize,
        index: u32,
    },
    Instance {
        gpu: usize,
        serial: u64,
    },
    Compute {
        gpu: usize,
        serial: u64,
    },
    Set {
        number: u64,
    },
}

const TAG: u32 = 56;
const GPU: u32 = 48;
const REST: u64 = (1 << GPU) - 1;

impl Handle {
    pub(crate) fn encode(self) -> usize {
        let (tag, gpu, rest) = match self {
            Self::Gpu { gpu } => (1, gpu, 0),
            Self::Mig { gpu, index } => (2, gpu, u64::from(index)),
            Self::Instance { gpu, serial } => (3, gpu, serial),
            Self::Compute { gpu, serial } => (4, gpu, serial),
            Self::Set { number } => (5, 0, number),
        };
        (tag << TAG | (gpu as u64) << GPU | rest & REST) as usize
    }

    pub(crate) fn decode(handle: usize) -> Option<Self> {
        let handle = handle as u64;
        let (gpu, rest) = ((handle >> GPU & 0xff) as usize, handle & REST);
        match handle >> TAG {
            1 => Some(Self::Gpu { gpu }),
            2 => Some(Self::Mig { gpu, index: rest as u32 }),
            3 => Some(Self::Instance { gpu, serial: rest }),
            4 => Some(Self::Compute { gpu, serial: rest }),
            5 => Some(Self::Set { number: rest }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for handle in [
            Handle::Gpu { gpu: 0 },
            Handle::Mig { gpu: 63, index: 6 },
            Handle::Instance { gpu: 3, serial: 1 << 40 },
            Handle::Compute { gpu: 1, serial: 7 },
            Handle::Set { number: 2 },
        ] {
            assert_ne!(handle.encode(), 0);
            assert_eq!(Handle::decode(handle.encode()), Some(handle));
        }
        assert_eq!((Handle::decode(0), Handle::decode(0x1234)), (None, None));
    }
}

//! What NVML answers. nvml-wrapper's error has no variant for the codes from 23 on, which are the ones that tell why a partition cannot be
//! made, so the codes are kept as NVML counts them.

use std::fmt;

/// A return code of NVML other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

impl Code {
    /// Nothing else was done before `nvmlInit`.
    pub const UNINITIALIZED: Self = Self(1);
    /// An index past the last, a handle of something that is gone.
    pub const INVALID_ARGUMENT: Self = Self(2);
    /// Not by this GPU, or not in the mode that it is in.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// Only root may.
    pub const NO_PERMISSION: Self = Self(4);
    /// No such thing.
    pub const NOT_FOUND: Self = Self(6);
    /// The list is longer than the room for it.
    pub const INSUFFICIENT_SIZE: Self = Self(7);
    /// The kernel module is not there.
    pub const DRIVER_NOT_LOADED: Self = Self(9);
    /// Nothing happened in the time given.
    pub const TIMEOUT: Self = Self(10);
    /// The library is older than the function; also a symbol that it does not have.
    pub const FUNCTION_NOT_FOUND: Self = Self(13);
    /// The GPU fell off the bus.
    pub const GPU_IS_LOST: Self = Self(15);
    /// The GPU has to be reset first.
    pub const RESET_REQUIRED: Self = Self(16);
    /// Library and kernel module are of different versions.
    pub const LIB_RM_VERSION_MISMATCH: Self = Self(18);
    /// Somebody uses it.
    pub const IN_USE: Self = Self(19);
    /// Slots, slices or engines are taken.
    pub const INSUFFICIENT_RESOURCES: Self = Self(23);
    /// The version in a struct is unknown to the library.
    pub const ARGUMENT_VERSION_MISMATCH: Self = Self(25);
    /// The GPU is in a state in which this cannot be done.
    pub const INVALID_STATE: Self = Self(29);
    /// Something inside the driver.
    pub const UNKNOWN: Self = Self(999);

    /// The name in `nvml.h`, without its prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|row| row.0 == self.0).map_or("a code without a name", |row| row.1)
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NOT_SUPPORTED => "the GPU, its mode or its driver does not have this",
            Self::NO_PERMISSION => {
                "run as root, or give the program /proc/driver/nvidia/capabilities/mig/config and /proc/driver/nvidia/capabilities/mig/monitor"
            }
            Self::NOT_FOUND | Self::INVALID_ARGUMENT => "it is gone or was made anew; it will be read again",
            Self::DRIVER_NOT_LOADED => "load the kernel module (modprobe nvidia) or reinstall the driver",
            Self::LIB_RM_VERSION_MISMATCH => "the driver was updated without a restart: reload the kernel module or restart the node",
            Self::FUNCTION_NOT_FOUND | Self::ARGUMENT_VERSION_MISMATCH => "update the driver",
            Self::GPU_IS_LOST => "the GPU fell off the bus: drain the node and restart it",
            Self::RESET_REQUIRED => "reset the GPU (nvidia-smi --gpu-reset) or restart the node",
            Self::IN_USE => "something still uses it: a process, or a monitor such as DCGM that keeps a handle; it will be tried again",
            Self::INSUFFICIENT_RESOURCES => "its slots, compute slices or media engines are taken",
            Self::INVALID_STATE => "the GPU is in no state for this; look at nvidia-smi -q",
            _ => "look at the kernel's log (dmesg) for lines that begin with NVRM",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.0)
    }
}

const NAMES: &[(u32, &str)] = &[
    (1, "UNINITIALIZED"),
    (2, "INVALID_ARGUMENT"),
    (3, "NOT_SUPPORTED"),
    (4, "NO_PERMISSION"),
    (5, "ALREADY_INITIALIZED"),
    (6, "NOT_FOUND"),
    (7, "INSUFFICIENT_SIZE"),
    (8, "INSUFFICIENT_POWER"),
    (9, "DRIVER_NOT_LOADED"),
    (10, "TIMEOUT"),
    (11, "IRQ_ISSUE"),
    (12, "LIBRARY_NOT_FOUND"),
    (13, "FUNCTION_NOT_FOUND"),
    (14, "CORRUPTED_INFOROM"),
    (15, "GPU_IS_LOST"),
    (16, "RESET_REQUIRED"),
    (17, "OPERATING_SYSTEM"),
    (18, "LIB_RM_VERSION_MISMATCH"),
    (19, "IN_USE"),
    (20, "MEMORY"),
    (21, "NO_DATA"),
    (22, "VGPU_ECC_NOT_SUPPORTED"),
    (23, "INSUFFICIENT_RESOURCES"),
    (24, "FREQ_NOT_SUPPORTED"),
    (25, "ARGUMENT_VERSION_MISMATCH"),
    (26, "DEPRECATED"),
    (27, "NOT_READY"),
    (28, "GPU_NOT_FOUND"),
    (29, "INVALID_STATE"),
    (30, "RESET_TYPE_NOT_SUPPORTED"),
    (999, "UNKNOWN"),
];

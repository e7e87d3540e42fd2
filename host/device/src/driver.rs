//! The port to GPUs: what NVML can do, as a trait, so that the life cycle of partitions is the same on simulated GPUs.

use std::time::Duration;

use crate::{
    error::DeviceError,
    gpu::{Activation, ComputeMode, DriverProfile, Event, GpuInfo, Instance, Process},
};

/// Asks GPUs and changes them. GPUs are named by UUID. Nothing here remembers anything: every answer is what the driver says now.
///
/// All errors are [`DeviceError`]s that name the function, the GPU and what to do.
pub trait Driver: Send + Sync {
    /// Version of the driver.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn version(&self) -> Result<String, DeviceError>;

    /// UUIDs of the GPUs in the driver's order. One that cannot be opened is an error in its place, so that the others go on.
    ///
    /// # Errors
    /// If they cannot be counted.
    fn list(&self) -> Result<Vec<Result<String, DeviceError>>, DeviceError>;

    /// What a GPU is.
    ///
    /// # Errors
    /// If it is lost or unknown.
    fn info(&self, gpu: &str) -> Result<GpuInfo, DeviceError>;

    /// The profiles of a GPU with their placements, which drivers tell even while MIG is off. Empty for a GPU without MIG.
    ///
    /// # Errors
    /// If the GPU cannot be asked.
    fn profiles(&self, gpu: &str) -> Result<Vec<DriverProfile>, DeviceError>;

    /// The GPU instances that exist, by id; none while MIG is off.
    ///
    /// # Errors
    /// If the GPU cannot be asked.
    fn instances(&self, gpu: &str) -> Result<Vec<Instance>, DeviceError>;

    /// Makes a GPU instance of a profile at a place of (first slot, slots). Returns its id.
    ///
    /// # Errors
    /// [`crate::nvml::Code::INSUFFICIENT_RESOURCES`] if the place is taken, and others.
    fn create(&self, gpu: &str, profile_id: u32, place: (u32, u32)) -> Result<u32, DeviceError>;

    /// Makes the compute instance that has all compute slices of a GPU instance.
    ///
    /// # Errors
    /// If there is one already, the GPU instance is gone, and others.
    fn create_compute(&self, gpu: &str, instance: u32) -> Result<u32, DeviceError>;

    /// Destroys a compute instance.
    ///
    /// # Errors
    /// [`crate::nvml::Code::IN_USE`] while a process uses it, and others.
    fn destroy_compute(&self, gpu: &str, instance: u32, compute: u32) -> Result<(), DeviceError>;

    /// Destroys a GPU instance.
    ///
    /// # Errors
    /// [`crate::nvml::Code::IN_USE`] while it has compute instances or somebody holds it, and others.
    fn destroy(&self, gpu: &str, instance: u32) -> Result<(), DeviceError>;

    /// Switches MIG on or off. The GPU must be idle, and its minor number may be another afterwards.
    ///
    /// # Errors
    /// If the driver refuses.
    fn set_mode(&self, gpu: &str, on: bool) -> Result<Activation, DeviceError>;

    /// Who may compute on a GPU.
    ///
    /// # Errors
    /// [`crate::nvml::Code::NOT_SUPPORTED`] where there is no such mode, and others.
    fn compute_mode(&self, gpu: &str) -> Result<ComputeMode, DeviceError>;

    /// Says who may compute on a GPU from now on; who does so already goes on.
    ///
    /// # Errors
    /// [`crate::nvml::Code::NOT_SUPPORTED`] while MIG is on, and others.
    fn set_compute_mode(&self, gpu: &str, mode: ComputeMode) -> Result<(), DeviceError>;

    /// The processes that use a GPU, of all its instances.
    ///
    /// # Errors
    /// If the GPU cannot be asked; then nobody knows who uses it, and nothing on it may be destroyed.
    fn processes(&self, gpu: &str) -> Result<Vec<Process>, DeviceError>;

    /// The next error of any of these GPUs; none if there is none within the time. What happens between two calls is not lost.
    ///
    /// # Errors
    /// If events cannot be waited for.
    fn next_event(&self, gpus: &[String], within: Duration) -> Result<Option<Event>, DeviceError>;
}

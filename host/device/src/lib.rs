//! The GPUs of one machine.

mod driver;
mod error;
pub mod gpu;
pub mod nvml;

pub use driver::Driver;
pub use error::DeviceError;

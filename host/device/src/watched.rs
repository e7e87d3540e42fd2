//! A driver whose calls may hang: each GPU has a thread of its own, and a call that does not come back sets that GPU aside.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use crate::{
    driver::Driver,
    error::DeviceError,
    gpu::{Activation, ComputeMode, DriverProfile, Event, GpuInfo, Instance, Process},
};

/// How long a call may take. Destroying takes about a second and a walk over all instances up to ten after the driver was loaded, so this
/// is a driver that does not answer any more. The scheduler takes an agent for silent after a minute, which a GPU that hangs must not use up.
pub const CALL_MAX: Duration = Duration::from_secs(20);

/// The thread of calls that are of no GPU.
const NODE: &str = "the node";

type Job = Box<dyn FnOnce() + Send>;

/// A driver of which every call ends in time. The calls of one GPU are made one after the other, on a thread of its own; while one of
/// them hangs, the others of that GPU fail at once with [`DeviceError::Hangs`]. It is set aside no longer when the call comes back.
pub struct Watched {
    driver: Arc<dyn Driver>,
    limit: Duration,
    workers: Mutex<BTreeMap<String, Worker>>,
}

#[derive(Clone)]
struct Worker {
    jobs: mpsc::Sender<Job>,
    /// How many calls were sent, and how many came back.
    sent: Arc<AtomicU64>,
    back: Arc<AtomicU64>,
    /// The number and name of a call that exceeded the limit.
    overdue: Arc<Mutex<Option<(u64, &'static str)>>>,
}

impl Watched {
    /// Calls of `driver` may take as long as `limit` ([`CALL_MAX`] unless there is a reason for another).
    #[must_use]
    pub fn new(driver: Arc<dyn Driver>, limit: Duration) -> Self {
        Self { driver, limit, workers: Mutex::new(BTreeMap::new()) }
    }

    fn call<T, F>(&self, gpu: &str, function: &'static str, ask: F) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Driver) -> Result<T, DeviceError> + Send + 'static,
    {
        let worker = self.worker(gpu)?;
        let hangs = |function| DeviceError::Hangs { gpu: gpu.to_owned(), function, seconds: self.limit.as_secs() };
        let mut overdue = worker.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, function)) = *overdue {
            if worker.back.load(Ordering::Acquire) < number {
                return Err(hangs(function));
            }
            *overdue = None;
        }
        let number = worker.sent.fetch_add(1, Ordering::AcqRel) + 1;
        drop(overdue);
        let (answer, answered) = mpsc::sync_channel(1);
        let (driver, back) = (self.driver.clone(), worker.back.clone());
        let job: Job = Box::new(move || {
            let told = ask(&*driver);
            back.store(number, Ordering::Release);
            // Nobody waits for an answer that came too late.
            let _ = answer.send(told);
        });
        let sent = worker.jobs.send(job);
        match sent.map_err(|_| RecvTimeoutError::Disconnected).and_then(|()| answered.recv_timeout(self.limit)) {
            Ok(told) => told,
            Err(RecvTimeoutError::Timeout) => {
                *worker.overdue.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, function));
                tracing::error!(gpu, function, "a call does not come back; the GPU is set aside");
                Err(hangs(function))
            }
            Err(RecvTimeoutError::Disconnected) => {
                // The call ended its thread, which is begun anew by the next.
                self.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(gpu);
                Err(DeviceError::Nonsense { function, gpu: gpu.to_owned(), what: "nothing: the call ended its thread".to_owned() })
            }
        }
    }

    fn worker(&self, gpu: &str) -> Result<Worker, DeviceError> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(gpu) {
            return Ok(worker.clone());
        }
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || queue.into_iter().for_each(|job| job());
        let started = thread::Builder::new().name(format!("nvml {gpu}")).spawn(work);
        started.map_err(|error| DeviceError::NoThread { gpu: gpu.to_owned(), reason: error.to_string() })?;
        let worker = Worker { jobs, sent: Arc::default(), back: Arc::default(), overdue: Arc::default() };
        workers.insert(gpu.to_owned(), worker.clone());
        Ok(worker)
    }

    /// A call about one GPU.
    fn of<T, F>(&self, gpu: &str, function: &'static str, ask: F) -> Result<T, DeviceError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Driver, &str) -> Result<T, DeviceError> + Send + 'static,
    {
        let name = gpu.to_owned();
        self.call(gpu, function, move |driver| ask(driver, &name))
    }
}

impl Driver for Watched {
    fn version(&self) -> Result<String, DeviceError> {
        self.call(NODE, "version", |driver| driver.version())
    }

    fn list(&self) -> Result<Vec<Result<String, DeviceError>>, DeviceError> {
        self.call(NODE, "list", |driver| driver.list())
    }

    fn info(&self, gpu: &str) -> Result<GpuInfo, DeviceError> {
        self.of(gpu, "info", |driver, gpu| driver.info(gpu))
    }

    fn profiles(&self, gpu: &str) -> Result<Vec<DriverProfile>, DeviceError> {
        self.of(gpu, "profiles", |driver, gpu| driver.profiles(gpu))
    }

    fn instances(&self, gpu: &str) -> Result<Vec<Instance>, DeviceError> {
        self.of(gpu, "instances", |driver, gpu| driver.instances(gpu))
    }

    fn create(&self, gpu: &str, profile_id: u32, place: (u32, u32)) -> Result<u32, DeviceError> {
        self.of(gpu, "create", move |driver, gpu| driver.create(gpu, profile_id, place))
    }

    fn create_compute(&self, gpu: &str, instance: u32) -> Result<u32, DeviceError> {
        self.of(gpu, "create_compute", move |driver, gpu| driver.create_compute(gpu, instance))
    }

    fn destroy_compute(&self, gpu: &str, instance: u32, compute: u32) -> Result<(), DeviceError> {
        self.of(gpu, "destroy_compute", move |driver, gpu| driver.destroy_compute(gpu, instance, compute))
    }

    fn destroy(&self, gpu: &str, instance: u32) -> Result<(), DeviceError> {
        self.of(gpu, "destroy", move |driver, gpu| driver.destroy(gpu, instance))
    }

    fn set_mode(&self, gpu: &str, on: bool) -> Result<Activation, DeviceError> {
        self.of(gpu, "set_mode", move |driver, gpu| driver.set_mode(gpu, on))
    }

    fn compute_mode(&self, gpu: &str) -> Result<ComputeMode, DeviceError> {
        self.of(gpu, "compute_mode", |driver, gpu| driver.compute_mode(gpu))
    }

    fn set_compute_mode(&self, gpu: &str, mode: ComputeMode) -> Result<(), DeviceError> {
        self.of(gpu, "set_compute_mode", move |driver, gpu| driver.set_compute_mode(gpu, mode))
    }

    fn processes(&self, gpu: &str) -> Result<Vec<Process>, DeviceError> {
        self.of(gpu, "processes", |driver, gpu| driver.processes(gpu))
    }

    /// Waits on the caller's own thread, since waiting is what it is for.
    fn next_event(&self, gpus: &[String], within: Duration) -> Result<Option<Event>, DeviceError> {
        self.driver.next_event(gpus, within)
    }
}

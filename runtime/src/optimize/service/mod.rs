//! The compiler thread: jobs in, machine code out, in the background.
//!
//! One thread, started at the first job, ended after a while without one. It never holds the GIL, touches no Python object, takes no signal and writes no log, so that it
//! may be abandoned at any point: when the process exits, nobody waits for it. Jobs and results travel over channels; the thread keeps the queue, hottest job first.
//! All functions here are called with the GIL held. The lock inside is for fork handlers; the compiler thread never takes it.
//!
//! Every job that `submit` takes ends as one `Finished`, but for those that a job of the same id supersedes.
//!
//! `thread.rs` is the thread itself, `fork.rs` what happens when the process forks.

mod fork;
mod thread;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use thiserror::Error;

use super::loader;
use thread::{Command, Event, Thread};

/// Jobs that may wait at once.
pub const QUEUE_LIMIT: usize = 256;

/// How often a caller that waits looks whether the thread is still able to answer.
const LOOK: Duration = Duration::from_millis(20);

/// One function to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Chosen by the caller, who finds it again in the result. A job supersedes one of the same id that still waits.
    pub id: u64,
    /// The hottest job is compiled first.
    pub heat: u64,
    /// What the optimizer reads.
    pub bytes: Vec<u8>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// There is machine code.
    Compiled {
        /// The job's.
        id: u64,
        /// For `object::place`.
        object: Vec<u8>,
        /// What installing it needs.
        metadata: Vec<u8>,
        /// Time in the optimizer, loading it not included.
        elapsed: Duration,
    },
    /// The optimizer does not want this function, or there is no optimizer. Asking again is useless.
    Refused {
        /// The job's.
        id: u64,
        /// In words.
        reason: String,
    },
    /// LLVM failed, or the optimizer did.
    Failed {
        /// The job's.
        id: u64,
        /// In words.
        message: String,
    },
    /// Not compiled: cancelled, pushed out of the queue by hotter jobs, or lost to this process in a fork. It may be submitted again.
    Dropped {
        /// The job's.
        id: u64,
    },
}

impl Finished {
    /// The job's id.
    pub fn id(&self) -> u64 {
        match self {
            Finished::Compiled { id, .. }
            | Finished::Refused { id, .. }
            | Finished::Failed { id, .. }
            | Finished::Dropped { id } => *id,
        }
    }
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Rejected {
    /// All jobs that wait are at least as hot.
    #[error("the compiler thread's queue is full")]
    QueueFull,
    /// The optimizer cannot be loaded, LLVM gave up, or `stop` was called.
    #[error("the optimizer is off")]
    Off,
    /// The system gives no thread.
    #[error("the compiler thread cannot be started")]
    NoThread,
}

/// A job without a result.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    heat: u64,
    /// It was told to leave the queue.
    cancelled: bool,
}

/// What the callers know.
struct Service {
    channels: Channels,
    thread: Option<Thread>,
    outstanding: BTreeMap<u64, Outstanding>,
    /// Commands of a thread that was ended before it came to them, for the next one.
    stranded: Vec<Command>,
    /// Results that nobody has taken yet.
    finished: VecDeque<Finished>,
}

/// Both ends of both channels: the thread's ends are cloned for each thread.
struct Channels {
    commands: Sender<Command>,
    inbox: Receiver<Command>,
    outbox: Sender<Event>,
    events: Receiver<Event>,
}

impl Channels {
    fn new() -> Channels {
        let (commands, inbox) = unbounded();
        let (outbox, events) = unbounded();
        Channels {
            commands,
            inbox,
            outbox,
            events,
        }
    }
}

static SERVICE: Mutex<Option<Service>> = Mutex::new(None);

/// No job is taken any more.
static OFF: AtomicBool = AtomicBool::new(false);

/// The program waits for every job.
static AWAITED: AtomicBool = AtomicBool::new(false);

/// `set_wakeup`'s function.
static WAKEUP: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// How many threads may be in it.
static WAKING: AtomicUsize = AtomicUsize::new(0);

/// How long the end of the interpreter waits for them. A thread that a fork left behind in the parent is waited for in vain.
const LAST_WAKE: Duration = Duration::from_millis(10);

fn lock() -> MutexGuard<'static, Option<Service>> {
    SERVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service, made at the first use, and fit for this process if a fork made it.
fn service(slot: &mut Option<Service>) -> &mut Service {
    fork::install();
    let service = slot.get_or_insert_with(|| Service {
        channels: Channels::new(),
        thread: None,
        outstanding: BTreeMap::new(),
        stranded: Vec::new(),
        finished: VecDeque::new(),
    });
    fork::settle(service);
    service
}

/// Queues a job. Its result comes out of `take_finished`.
pub fn submit(job: Job) -> Result<(), Rejected> {
    if is_off() {
        return Err(Rejected::Off);
    }
    let mut slot = lock();
    let service = service(&mut slot);
    service.make_room(&job)?;
    let outstanding = Outstanding {
        heat: job.heat,
        cancelled: false,
    };
    service.outstanding.insert(job.id, outstanding);
    service.send(Command::Compile(job))
}

/// Takes a job out of the queue, if it is still there: it ends as `Dropped`.
pub fn cancel(id: u64) {
    let mut slot = lock();
    if slot.is_some() {
        service(&mut slot).cancel(id);
    }
}

/// Compiles a job at once, before all that wait. The caller waits, with the GIL held: for `HOTSTAMP_TIER=optimizer`.
pub fn compile_now(job: Job) -> Finished {
    let id = job.id;
    let failed = |error: Rejected| Finished::Failed {
        id,
        message: error.to_string(),
    };
    if is_off() {
        return failed(Rejected::Off);
    }
    let (reply, answer) = bounded(1);
    if let Err(error) = service(&mut lock()).send(Command::Now(job, reply)) {
        return failed(error);
    }
    // The lock is not held while waiting: a thread without the GIL may fork meanwhile, which ends the compiler thread.
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(finished) => {
                service(&mut lock()).collect();
                return finished;
            }
            Err(RecvTimeoutError::Disconnected) => return failed(Rejected::NoThread),
            Err(RecvTimeoutError::Timeout) => {
                let mut slot = lock();
                let service = service(&mut slot);
                if service.is_stuck() {
                    return failed(Rejected::Off);
                }
                if let Err(error) = service.ensure_thread() {
                    return failed(error);
                }
            }
        }
    }
}

/// The next result, if there is one.
pub fn take_finished() -> Option<Finished> {
    let mut slot = lock();
    slot.as_ref()?;
    let service = service(&mut slot);
    service.collect();
    if let Some(finished) = service.finished.pop_front() {
        service.outstanding.remove(&finished.id());
        return Some(finished);
    }
    if service.is_stuck() {
        // What the thread had queued is never compiled.
        let (id, _) = service.outstanding.pop_first()?;
        let reason = Rejected::Off.to_string();
        return Some(Finished::Refused { id, reason });
    }
    // Threads that a fork ended, or that died, leave jobs behind.
    if !service.outstanding.is_empty() {
        let _ = service.ensure_thread();
    }
    service.finished.pop_front()
}

/// Before a fork: asks the thread to end, waits a little, and says whether it is there all the same. The handlers of the fork do not wait again.
pub(crate) fn thread_stays() -> bool {
    let mut slot = lock();
    slot.is_some() && fork::end_thread(service(&mut slot), true)
}

/// In the child of a fork, when Python is ready again: jobs that were lost are to be taken notice of.
pub(crate) fn notice_fork() {
    if outstanding() > 0 {
        wake_up();
    }
}

/// Says that the program will wait for every job: the thread is as urgent as the program then.
pub fn expect_to_wait() {
    AWAITED.store(true, Ordering::Relaxed);
}

/// Sets the function that tells the program of a result. It is called on the compiler thread, and in the parent of a fork, with a lock held: it may not call this module.
pub fn set_wakeup(wakeup: fn()) {
    WAKEUP.store(wakeup as *mut (), Ordering::Release);
}

/// Calls the function of `set_wakeup`.
fn wake_up() {
    WAKING.fetch_add(1, Ordering::SeqCst);
    let wakeup = WAKEUP.load(Ordering::SeqCst);
    if !wakeup.is_null() {
        // SAFETY: `set_wakeup` stored a function of this type, and nothing else stores.
        let wakeup: fn() = unsafe { std::mem::transmute::<*mut (), fn()>(wakeup) };
        wakeup();
    }
    WAKING.fetch_sub(1, Ordering::SeqCst);
}

/// Ends the service for good, without waiting for the thread's work: no job is taken, nobody is woken up any more when this returns. For the end of the interpreter.
pub fn stop() {
    OFF.store(true, Ordering::Release);
    WAKEUP.store(std::ptr::null_mut(), Ordering::SeqCst);
    let begun = Instant::now();
    while WAKING.load(Ordering::SeqCst) != 0 && begun.elapsed() < LAST_WAKE {
        std::thread::yield_now();
    }
}

/// Whether no job is taken any more.
pub fn is_off() -> bool {
    OFF.load(Ordering::Acquire)
}

/// Jobs without a result yet.
pub fn outstanding() -> usize {
    let mut slot = lock();
    if slot.is_none() {
        return 0;
    }
    service(&mut slot).outstanding.len()
}

fn warn_off(reason: &str) {
    tracing::warn!("functions are not optimized: {reason}");
}

impl Service {
    fn is_stuck(&self) -> bool {
        self.thread.as_ref().is_some_and(Thread::is_stuck)
    }

    /// Makes sure that a job may be queued, at a colder one's cost if need be.
    fn make_room(&mut self, job: &Job) -> Result<(), Rejected> {
        let waiting = self.outstanding.iter().filter(|(_, one)| !one.cancelled);
        if self.outstanding.contains_key(&job.id) || waiting.clone().count() < QUEUE_LIMIT {
            return Ok(());
        }
        match waiting.min_by_key(|(_, one)| one.heat) {
            Some((&coldest, one)) if one.heat < job.heat => {
                self.cancel(coldest);
                Ok(())
            }
            _ => Err(Rejected::QueueFull),
        }
    }

    fn cancel(&mut self, id: u64) {
        if let Some(one) = self.outstanding.get_mut(&id) {
            one.cancelled = true;
            let _ = self.send(Command::Cancel(id));
        }
    }

    fn send(&mut self, command: Command) -> Result<(), Rejected> {
        // Never fails: `inbox` is here.
        let _ = self.channels.commands.send(command);
        self.ensure_thread()
    }

    /// Makes sure that a thread runs that will look into its inbox.
    fn ensure_thread(&mut self) -> Result<(), Rejected> {
        if self.thread.as_ref().is_some_and(Thread::goes_on) {
            return Ok(());
        }
        self.join();
        let stranded = std::mem::take(&mut self.stranded);
        let inbox = self.channels.inbox.clone();
        let outbox = self.channels.outbox.clone();
        match Thread::start(loader::path(), inbox, outbox, stranded) {
            Ok(thread) => {
                self.thread = Some(thread);
                Ok(())
            }
            Err(error) => {
                OFF.store(true, Ordering::Release);
                warn_off(&format!("no thread: {error}"));
                self.lose_unfinished();
                Err(Rejected::NoThread)
            }
        }
    }

    /// Waits for a thread that is about to end, and keeps what it left.
    fn join(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        match thread.join() {
            Some(left) => {
                self.stranded.extend(left);
                let came_later = self.channels.inbox.try_iter();
                self.stranded
                    .extend(came_later.filter(|one| !matches!(one, Command::End)));
            }
            None => self.lose_unfinished(),
        }
    }

    /// Takes in what the thread said.
    fn collect(&mut self) {
        for event in self.channels.events.try_iter() {
            match event {
                Event::Finished(finished) => self.finished.push_back(finished),
                Event::Off(reason) => warn_off(&reason),
            }
        }
    }

    /// Gives up all jobs without a result. There is no thread.
    fn lose_unfinished(&mut self) {
        self.collect();
        self.channels.inbox.try_iter().for_each(drop);
        self.stranded.clear();
        for &id in self.outstanding.keys() {
            if !self.finished.iter().any(|one| one.id() == id) {
                self.finished.push_back(Finished::Dropped { id });
            }
        }
    }

    /// Gives up all jobs whose result this process has not seen, and forgets everything that the thread may have had in its hands, without touching it.
    fn abandon_thread(&mut self) {
        std::mem::forget(self.thread.take());
        std::mem::forget(std::mem::replace(&mut self.channels, Channels::new()));
        self.lose_unfinished();
    }
}

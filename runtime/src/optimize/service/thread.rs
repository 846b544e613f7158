//! The compiler thread itself, and how it ends.
//!
//! It ends when nothing came for a while, and when a fork asks it to. Ending must not lose a command: the thread marks itself as ended first and looks into its inbox
//! again, callers send first and look at the mark.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering, fence};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{AWAITED, Finished, Job, OFF, wake_up};
use crate::optimize::boundary::{Bytes, Optimizer, Outcome};
use crate::optimize::loader::{self, LoadError};
use crate::threads;

/// How long the thread waits for a job before it ends.
pub(super) const IDLE: Duration = Duration::from_millis(500);

/// LLVM recurses over what it compiles. Only what is touched takes memory.
const STACK_BYTES: usize = 16 << 20;

/// What the callers tell the thread.
pub(super) enum Command {
    /// Queue a job.
    Compile(Job),
    /// Compile a job next, and answer there.
    Now(Job, Sender<Finished>),
    /// Take a job out of the queue.
    Cancel(u64),
    /// End, and leave what is queued. For forks.
    End,
}

/// What the thread tells the callers.
pub(super) enum Event {
    /// A job ended.
    Finished(Finished),
    /// No more will be compiled, for this reason.
    Off(String),
}

/// The mark of a thread.
struct Status(AtomicU8);

impl Status {
    const RUNNING: u8 = 0;
    /// It looks into its inbox for the last time, and ends.
    const ENDED: u8 = 1;
    /// A caller saw that it ended and waits for it.
    const CLAIMED: u8 = 2;
    /// LLVM gave up inside it: it neither goes on nor ends.
    const STUCK: u8 = 3;

    fn set(&self, value: u8) {
        self.0.store(value, Ordering::SeqCst);
    }

    fn is(&self, value: u8) -> bool {
        self.0.load(Ordering::SeqCst) == value
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// By so much the thread is nicer than the program: where processors are scarce it gets about a quarter of the time of one.
const NICER: libc::c_int = 5;

/// Lets the program go first, unless it waits for each job.
fn yield_to_program() {
    if AWAITED.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: Linux keeps this for each thread; 0 is the calling one. If it is refused, nothing changes.
    unsafe {
        let now = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, now.saturating_add(NICER));
    }
}

/// A thread, as the callers see it.
pub(super) struct Thread {
    handle: JoinHandle<Vec<Command>>,
    status: Arc<Status>,
    /// Nothing comes out; it closes when the thread is done.
    done: Receiver<()>,
}

impl Thread {
    /// Starts the thread. `left` are commands that an earlier one did not come to.
    pub(super) fn start(
        path: PathBuf,
        inbox: Receiver<Command>,
        outbox: Sender<Event>,
        left: Vec<Command>,
    ) -> io::Result<Thread> {
        let status = Arc::new(Status(AtomicU8::new(Status::RUNNING)));
        let (alive, done) = bounded::<()>(0);
        let mut compiler = Compiler {
            path,
            inbox,
            outbox,
            status: Arc::clone(&status),
            queue: Queue::default(),
            ending: false,
        };
        let handle = threads::without_signals(|| {
            Builder::new()
                .name("hotstamp".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    yield_to_program();
                    let left = compiler.run(left);
                    drop(compiler);
                    drop(alive);
                    left
                })
        })?;
        Ok(Thread {
            handle,
            status,
            done,
        })
    }

    /// Whether the thread will see what was sent before this call.
    pub(super) fn goes_on(&self) -> bool {
        fence(Ordering::SeqCst);
        // A thread that panicked has no mark.
        !self.status.change(Status::ENDED, Status::CLAIMED)
            && !self.status.is(Status::CLAIMED)
            && !self.handle.is_finished()
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.status.is(Status::STUCK)
    }

    /// Waits until the thread is done, for so long at most.
    pub(super) fn is_done_within(&self, time: Duration) -> bool {
        matches!(
            self.done.recv_timeout(time),
            Err(RecvTimeoutError::Disconnected)
        )
    }

    /// Waits for the thread's end. What it did not come to, or `None` if it panicked.
    pub(super) fn join(self) -> Option<Vec<Command>> {
        self.handle.join().ok()
    }
}

/// Where a result goes.
#[derive(Clone)]
enum Answer {
    Everybody,
    Caller(Sender<Finished>),
}

/// Jobs that wait, hottest first, older first among equals.
#[derive(Default)]
struct Queue {
    jobs: BTreeMap<(std::cmp::Reverse<u64>, u64), (Job, Answer)>,
    places: BTreeMap<u64, (std::cmp::Reverse<u64>, u64)>,
    arrivals: u64,
}

impl Queue {
    fn add(&mut self, job: Job) {
        self.remove(job.id);
        self.arrivals += 1;
        let place = (std::cmp::Reverse(job.heat), self.arrivals);
        self.places.insert(job.id, place);
        self.jobs.insert(place, (job, Answer::Everybody));
    }

    /// Jobs that somebody waits for share no ids with the others.
    fn add_first(&mut self, job: Job, answer: Sender<Finished>) {
        self.arrivals += 1;
        let place = (std::cmp::Reverse(u64::MAX), self.arrivals);
        self.jobs.insert(place, (job, Answer::Caller(answer)));
    }

    fn remove(&mut self, id: u64) -> bool {
        self.places
            .remove(&id)
            .is_some_and(|place| self.jobs.remove(&place).is_some())
    }

    fn pop(&mut self) -> Option<(Job, Answer)> {
        let (_, (job, answer)) = self.jobs.pop_first()?;
        if matches!(answer, Answer::Everybody) {
            self.places.remove(&job.id);
        }
        Some((job, answer))
    }

    fn into_commands(self) -> impl Iterator<Item = Command> {
        self.jobs.into_values().map(|(job, answer)| match answer {
            Answer::Everybody => Command::Compile(job),
            Answer::Caller(answer) => Command::Now(job, answer),
        })
    }
}

/// What the thread works with.
struct Compiler {
    path: PathBuf,
    inbox: Receiver<Command>,
    outbox: Sender<Event>,
    status: Arc<Status>,
    queue: Queue,
    /// A fork asked for the end.
    ending: bool,
}

/// The optimizer, once it is loaded.
static OPTIMIZER: AtomicPtr<Optimizer> = AtomicPtr::new(null_mut());

/// The one that was loaded cannot be used in this process.
static ANOTHER_COPY: AtomicBool = AtomicBool::new(false);

/// Called in the child of a fork that happened while the thread was at work.
pub(super) fn forget_optimizer() {
    OPTIMIZER.store(null_mut(), Ordering::Release);
    ANOTHER_COPY.store(true, Ordering::Release);
}

/// What the thread does just now, for the case that LLVM gives up in the middle of it.
struct AtWork {
    id: u64,
    answer: Answer,
    outbox: Sender<Event>,
    status: Arc<Status>,
}

thread_local! {
    static AT_WORK: RefCell<Option<AtWork>> = const { RefCell::new(None) };
}

impl Compiler {
    /// Works until there is nothing to do, or a fork asks for the end. Returns what it did not come to.
    fn run(&mut self, left: Vec<Command>) -> Vec<Command> {
        for command in left {
            self.accept(command);
        }
        loop {
            while let Ok(command) = self.inbox.try_recv() {
                self.accept(command);
            }
            if !self.ending
                && let Some((job, answer)) = self.queue.pop()
            {
                self.work(job, answer);
                continue;
            }
            if !self.ending {
                match self.inbox.recv_timeout(IDLE) {
                    Ok(command) => {
                        self.accept(command);
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Vec::new(),
                }
            }
            self.status.set(Status::ENDED);
            fence(Ordering::SeqCst);
            while let Ok(command) = self.inbox.try_recv() {
                self.accept(command);
            }
            // Something came after all, and nobody has noticed yet that this thread ended.
            if !self.ending
                && !self.queue.jobs.is_empty()
                && self.status.change(Status::ENDED, Status::RUNNING)
            {
                continue;
            }
            let left: Vec<Command> = std::mem::take(&mut self.queue).into_commands().collect();
            if !left.is_empty() {
                // Somebody has to start a thread for them.
                wake_up();
            }
            return left;
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Compile(job) => self.queue.add(job),
            Command::Now(job, answer) => self.queue.add_first(job, answer),
            Command::Cancel(id) => {
                if self.queue.remove(id) {
                    self.send(Event::Finished(Finished::Dropped { id }));
                }
            }
            Command::End => self.ending = true,
        }
    }

    fn send(&self, event: Event) {
        // If nobody listens any more, nobody misses it.
        let _ = self.outbox.send(event);
        wake_up();
    }

    fn answer(&self, answer: &Answer, finished: Finished) {
        match answer {
            Answer::Everybody => self.send(Event::Finished(finished)),
            Answer::Caller(caller) => {
                let _ = caller.send(finished);
            }
        }
    }

    fn work(&mut self, job: Job, answer: Answer) {
        let id = job.id;
        let finished = if OFF.load(Ordering::Acquire) {
            Finished::Refused {
                id,
                reason: super::Rejected::Off.to_string(),
            }
        } else {
            match optimizer(&self.path) {
                Ok(optimizer) => {
                    self.set_at_work(Some((id, &answer)));
                    let finished = compile(optimizer, &job);
                    self.set_at_work(None);
                    finished
                }
                Err(error) => {
                    let reason = error.to_string();
                    OFF.store(true, Ordering::Release);
                    self.send(Event::Off(reason.clone()));
                    Finished::Refused { id, reason }
                }
            }
        };
        self.answer(&answer, finished);
    }

    fn set_at_work(&self, job: Option<(u64, &Answer)>) {
        let at_work = job.map(|(id, answer)| AtWork {
            id,
            answer: answer.clone(),
            outbox: self.outbox.clone(),
            status: Arc::clone(&self.status),
        });
        AT_WORK.with(|slot| *slot.borrow_mut() = at_work);
    }
}

/// The optimizer, loaded at the first job.
fn optimizer(path: &Path) -> Result<&'static Optimizer, LoadError> {
    let loaded = OPTIMIZER.load(Ordering::Acquire);
    if !loaded.is_null() {
        // SAFETY: `load` gave it, for ever.
        return Ok(unsafe { &*loaded });
    }
    let another = ANOTHER_COPY.load(Ordering::Acquire);
    let optimizer = loader::load(path, another, llvm_gave_up)?;
    OPTIMIZER.store(std::ptr::from_ref(optimizer).cast_mut(), Ordering::Release);
    ANOTHER_COPY.store(false, Ordering::Release);
    Ok(optimizer)
}

fn compile(optimizer: &Optimizer, job: &Job) -> Finished {
    let id = job.id;
    let begin = Instant::now();
    // SAFETY: the job's bytes outlive the call, and this is the only thread that compiles.
    let output = unsafe { (optimizer.compile)(Bytes::from(&job.bytes[..])) };
    let elapsed = begin.elapsed();
    // SAFETY: the optimizer keeps its output until the release below.
    let (object, metadata) = unsafe {
        (
            output.object.as_slice().to_vec(),
            output.metadata.as_slice().to_vec(),
        )
    };
    let outcome = output.outcome;
    // SAFETY: given back once, and not used afterwards.
    unsafe { (optimizer.release)(output) };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match outcome {
        Outcome::Compiled => Finished::Compiled {
            id,
            object,
            metadata,
            elapsed,
        },
        Outcome::Refused => Finished::Refused {
            id,
            reason: text(metadata),
        },
        Outcome::Failed => Finished::Failed {
            id,
            message: text(metadata),
        },
    }
}

/// LLVM calls this instead of ending the process. There is no way back through its frames, so this thread stays here for ever, and the optimizer is off.
unsafe extern "C" fn llvm_gave_up(message: Bytes) {
    // SAFETY: the bytes live as long as this call.
    let message = String::from_utf8_lossy(unsafe { message.as_slice() }).into_owned();
    OFF.store(true, Ordering::Release);
    if let Some(at_work) = AT_WORK.with(|slot| slot.borrow_mut().take()) {
        let finished = Finished::Failed {
            id: at_work.id,
            message: message.clone(),
        };
        let _ = at_work
            .outbox
            .send(Event::Off(format!("LLVM gave up: {message}")));
        match &at_work.answer {
            Answer::Everybody => {
                let _ = at_work.outbox.send(Event::Finished(finished));
            }
            Answer::Caller(caller) => {
                let _ = caller.send(finished);
            }
        }
        at_work.status.set(Status::STUCK);
        wake_up();
    }
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u64, heat: u64) -> Job {
        Job {
            id,
            heat,
            bytes: Vec::new(),
        }
    }

    fn drain(mut queue: Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop().map(|(job, _)| job.id)).collect()
    }

    #[test]
    fn the_hottest_comes_first_and_the_older_among_equals() {
        let mut queue = Queue::default();
        for (id, heat) in [(1, 5), (2, 9), (3, 5), (4, 1), (5, 9)] {
            queue.add(job(id, heat));
        }
        let (answer, _caller) = bounded(1);
        queue.add_first(job(6, 0), answer);
        assert_eq!(drain(queue), [6, 2, 5, 1, 3, 4]);
    }

    #[test]
    fn a_job_supersedes_its_elder_and_what_is_removed_is_gone() {
        let mut queue = Queue::default();
        queue.add(job(1, 5));
        queue.add(job(2, 6));
        queue.add(job(1, 7));
        assert!(queue.remove(2) && !queue.remove(2) && !queue.remove(3));
        assert_eq!(drain(queue), [1]);
    }

    #[test]
    fn what_is_left_is_queued_again_as_it_was() {
        let mut queue = Queue::default();
        let (answer, _caller) = bounded(1);
        queue.add(job(1, 5));
        queue.add_first(job(2, 0), answer);
        let left: Vec<Command> = queue.into_commands().collect();
        assert!(matches!(&left[0], Command::Now(job, _) if job.id == 2));
        assert!(matches!(&left[1], Command::Compile(job) if job.id == 1));
    }
}

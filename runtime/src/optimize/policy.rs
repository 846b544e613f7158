//! What is compiled when: from a hot function or loop to a job, from a finished job to installed code, from repeated exits to another attempt.

use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotstamp_job::artifact::Reason;
use hotstamp_job::{DESTROYED, ENUMERATE_SIZE, Metadata, NOT_WORTH_IT, Options, Process};
use hotstamp_layout::ffi::{self, PyThreadState};
use hotstamp_layout::refs;

use super::artifact::{Artifact, Installed};
use super::service::{self, Finished, Job};
use super::{hotness, leave, lists, object, snapshot};
use crate::Frame;
use crate::code_data::CodeData;
use crate::code_memory::CodeMemory;

/// How the tier behaves.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Compile at once, on the calling thread (`HOTSTAMP_TIER=optimizer`).
    pub synchronous: bool,
    /// What jobs ask for.
    pub options: Options,
    /// Folder for dumps, if any is asked for.
    pub dump_folder: Option<std::path::PathBuf>,
    /// Only functions whose qualified name contains this are dumped.
    pub dump_filter: Option<String>,
    /// Enter hot loops in the middle (`HOTSTAMP_OSR`).
    pub on_stack_replacement: bool,
}

/// Exits of one plan after which its code is compiled anew with what was learnt.
const EXITS_TO_LEARN: u32 = 8;

/// Attempts at one entry; the last one's code stays, however often it leaves.
const MOST_ATTEMPTS: u32 = 8;

/// How often an instruction that was left at is compiled again with what baseline code has seen since: classes come one after the other.
const MOST_LESSONS: u32 = 2;

/// Back edges after which a loop that was left for a pending event enters its code again.
const HEAT_TO_RETURN: u32 = 64;

/// How often an entry is asked for again whose code was not worth it.
const MOST_REFUSALS: u32 = 3;

/// Heat of a function whose code was retired.
const HEAT_TO_LEARN: u32 = 200;

/// Heat of a function that was left: its frame goes on in baseline code, where a loop may be long.
const HEAT_AFTER_EXIT: u32 = 500;

/// After so many exceptions at one place it is looked how long they took.
const RAISES_TO_LOOK: u32 = 512;

/// Code that raises more often than this is better off in baseline code, which finds handlers without making frames anew.
const RAISES_OFTEN: Duration = Duration::from_micros(100);

/// Exits of one plan at which its code is retired, should the code that takes its place still be under way.
const EXITS_TO_RETIRE: u32 = 64;

#[derive(Default)]
struct State {
    settings: Settings,
    installed: Installed,
    /// Jobs under way, by number.
    under_way: HashMap<u64, Waiting>,
    /// Entries that were asked for, so that nobody asks again.
    asked: HashSet<(usize, u32)>,
    /// Attempts by entry.
    attempts: HashMap<(usize, u32), u32>,
    /// Installations by function, loops included.
    installations: HashMap<usize, u64>,
    /// Entries whose code was not worth it, and how often.
    refusals: HashMap<(usize, u32), u32>,
    /// How often an entry is not asked for again, after code for it was not worth it.
    patience: HashMap<(usize, u32), u32>,
    /// Instructions whose guards failed: code object, offset.
    failed: HashMap<usize, Vec<(u64, u32)>>,
    /// Instructions that were left at until the baseline had learnt what they do: function, code object, offset; how often.
    learnt: HashMap<(usize, u64, u32), u32>,
    /// Entries to ask for anew, while their code goes on.
    relearn: Vec<(usize, u32)>,
    /// Everything that was installed.
    artifacts: Vec<*mut Artifact>,
    /// The interpreter ends.
    ended: bool,
    next_id: u64,
    totals: Totals,
}

// SAFETY: the pointers are used under the GIL only.
unsafe impl Send for State {}

struct Waiting {
    artifact: *mut Artifact,
    name: String,
    since: Instant,
}

// SAFETY: the pointers are used under the GIL only.
unsafe impl Send for Waiting {}

/// Sums for the statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Functions and loops compiled and installed.
    pub compiled: u64,
    /// Refused.
    pub refused: u64,
    /// Failed: defects.
    pub failed: u64,
    /// Bytes of machine code.
    pub code_bytes: u64,
    /// Time on the compiler thread.
    pub compile_time: Duration,
    /// Longest stop of the program for a snapshot or an installation.
    pub longest_stall: Duration,
    /// All stops together.
    pub stalled: Duration,
    /// From hot to installed, added up.
    pub latency: Duration,
    /// Recompilations after exits.
    pub retired: u64,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static STARTED: AtomicBool = AtomicBool::new(false);
static EXITS: [AtomicU64; Reason::ALL.len()] = [const { AtomicU64::new(0) }; Reason::ALL.len()];

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the tier: hot functions are compiled from here on.
pub fn start(settings: Settings, threshold: u32) {
    hotness::set_threshold(threshold);
    if settings.synchronous {
        service::expect_to_wait();
    }
    *state() = Some(State {
        settings,
        ..State::default()
    });
    STARTED.store(true, Ordering::Relaxed);
    service::set_wakeup(wake);
    hotness::set_hooks(hot_call, hot_loop);
    // SAFETY: GIL held, in a call from Python.
    unsafe { super::quiet::prepare() };
}

/// The interpreter is about to end: nothing is compiled or entered any more, and all that optimized code kept alive is released, so that what only it held is
/// destroyed as the interpreter would.
///
/// # Safety
/// GIL held; no thread will go on in optimized code.
pub unsafe fn end() {
    if !STARTED.load(Ordering::Relaxed) {
        return;
    }
    service::stop();
    let (artifacts, installed) = {
        let mut state = state();
        let Some(state) = state.as_mut() else { return };
        state.ended = true;
        let waiting = std::mem::take(&mut state.under_way)
            .into_values()
            .map(|waiting| waiting.artifact);
        let artifacts: Vec<*mut Artifact> = std::mem::take(&mut state.artifacts)
            .into_iter()
            .chain(waiting)
            .collect();
        (artifacts, std::mem::take(&mut state.installed))
    };
    // SAFETY: data that is installed into is live. Releasing may free data, and run Python code: the state is not locked.
    unsafe {
        for data in installed.functions() {
            CodeData::uninstall_optimized(data);
        }
        for artifact in artifacts {
            (*artifact).keep_only(|_| false);
        }
    }
}

/// Sums, if the tier was started.
pub fn totals() -> Option<Totals> {
    state().as_ref().map(|state| state.totals)
}

/// Jobs that wait, are being compiled, or are not installed yet.
pub fn under_way() -> usize {
    state().as_ref().map_or(0, |state| state.under_way.len())
}

/// How often code was installed for a function, for its loops too.
pub fn installations(data: *mut CodeData) -> u64 {
    state()
        .as_ref()
        .and_then(|state| state.installations.get(&(data as usize)).copied())
        .unwrap_or(0)
}

/// Bytes of the code that is installed for a function, for its loops too.
pub fn installed_bytes(data: *mut CodeData) -> usize {
    state().as_ref().map_or(0, |state| {
        state
            .installed
            .of(data)
            // SAFETY: installed artifacts live; GIL held.
            .filter_map(|artifact| unsafe { (*artifact).placed.as_ref() })
            .map(|placed| placed.len)
            .sum()
    })
}

/// Exits of optimized code by reason.
pub fn exits() -> impl Iterator<Item = (Reason, u64)> {
    Reason::ALL
        .iter()
        .map(|&reason| (reason, EXITS[reason as usize].load(Ordering::Relaxed)))
}

/// The function's data is about to be freed.
pub fn forget(data: *mut CodeData) {
    if !STARTED.load(Ordering::Relaxed) {
        return;
    }
    if let Some(state) = state().as_mut() {
        state.installed.forget(data);
        state.asked.retain(|(place, _)| *place != data as usize);
        state
            .attempts
            .retain(|(place, _), _| *place != data as usize);
        state.installations.remove(&(data as usize));
        state
            .refusals
            .retain(|(place, _), _| *place != data as usize);
        state
            .patience
            .retain(|(place, _), _| *place != data as usize);
        state
            .learnt
            .retain(|(place, ..), _| *place != data as usize);
        state.relearn.retain(|(place, _)| *place != data as usize);
        state.failed.remove(&(data as usize));
    }
}

unsafe extern "C" fn hot_call(
    _frame: *mut Frame,
    _tstate: *mut PyThreadState,
    data: *mut CodeData,
) {
    // SAFETY: `data` is live, GIL held.
    unsafe {
        request(data, 0);
        // Its loops are entered where they begin to turn.
        if state()
            .as_ref()
            .is_some_and(|state| state.installed.has_loop(data))
        {
            (*data).heat = 1;
        }
    }
}

unsafe extern "C" fn hot_loop(
    frame: *mut Frame,
    _tstate: *mut PyThreadState,
    data: *mut CodeData,
    head: u32,
) -> *const u8 {
    // SAFETY: `data` is live, GIL held; the frame is the running one.
    unsafe {
        // A generator's frame is resumed in the middle, which optimized code cannot.
        let plain = i64::from((*frame).owner) == i64::from(ffi::FRAME_OWNED_BY_THREAD);
        if !plain {
            return std::ptr::null();
        }
        if (*frame).frame_obj.is_null() {
            let find = || {
                state()
                    .as_ref()
                    .filter(|state| state.settings.on_stack_replacement)
                    .and_then(|state| state.installed.get(data, head))
                    .and_then(|artifact| (*artifact).code())
            };
            if find().is_none() {
                request(data, head);
            }
            if let Some(code) = find() {
                // For the next time that baseline code gets here.
                (*data).heat = 1;
                return code.0;
            }
        }
        if (*data).optimized.0.is_null() {
            // The function's next calls may be as hot.
            request(data, 0);
        }
        std::ptr::null()
    }
}

/// Asks for code, unless somebody did.
unsafe fn request(data: *mut CodeData, entry: u32) {
    let started = Instant::now();
    // SAFETY: `data` is live, GIL held. Nothing between the locks runs Python code.
    unsafe {
        let (settings, id, failed) = {
            let mut state = state();
            let Some(state) = state.as_mut() else { return };
            if state.ended || entry != 0 && !state.settings.on_stack_replacement {
                return;
            }
            if let Some(left) = state.patience.get_mut(&(data as usize, entry))
                && *left > 0
            {
                *left -= 1;
                (*data).heat = hotness::threshold();
                return;
            }
            if !state.asked.insert((data as usize, entry)) {
                return;
            }
            state.next_id += 1;
            (
                state.settings.clone(),
                state.next_id,
                state
                    .failed
                    .get(&(data as usize))
                    .cloned()
                    .unwrap_or_default(),
            )
        };
        let Some(mut job) = snapshot::take(data, entry) else {
            return;
        };
        let artifact = Artifact::new(id, data, entry);
        job.id = id;
        job.process = process(artifact);
        job.failed = failed;
        job.options = settings.options.clone();
        let name = job.codes[0].name.clone();
        if settings
            .dump_filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            job.options.dump_hir = false;
            job.options.dump_llvm = false;
            job.options.dump_asm = false;
        }
        (*artifact).hold(&job);
        let Ok(bytes) = postcard::to_allocvec(&job) else {
            return;
        };
        if let Some(state) = state().as_mut() {
            state.under_way.insert(
                id,
                Waiting {
                    artifact,
                    name,
                    since: started,
                },
            );
            state.stall(started.elapsed());
        }
        let job = Job { id, heat: 0, bytes };
        if settings.synchronous {
            install(service::compile_now(job));
        } else if service::submit(job).is_err()
            && let Some(state) = state().as_mut()
        {
            state.under_way.remove(&id);
            state.asked.remove(&(data as usize, entry));
            (*data).heat = hotness::threshold();
        }
    }
}

impl State {
    /// Whether code for an entry is about to be made or under way.
    fn relearning(&self, place: (usize, u32)) -> bool {
        self.relearn.contains(&place)
            || self.under_way.values().any(|waiting| {
                // SAFETY: artifacts live for ever; GIL held.
                unsafe { ((*waiting.artifact).data as usize, (*waiting.artifact).entry) == place }
            })
    }

    /// Nothing enters the code any more. Frames that run it stay in it.
    unsafe fn retire(&mut self, artifact: *mut Artifact) {
        // SAFETY: artifacts live for ever, and data that is installed into is live; GIL held.
        unsafe {
            let (data, entry) = ((*artifact).data, (*artifact).entry);
            self.installed.remove(data, entry);
            (*artifact).retired = true;
            if entry == 0 {
                CodeData::uninstall_optimized(data);
            }
            (*data).heat = HEAT_TO_LEARN;
        }
    }

    fn stall(&mut self, time: Duration) {
        self.totals.stalled += time;
        self.totals.longest_stall = self.totals.longest_stall.max(time);
    }
}

/// On the compiler thread: something is finished. Asks a thread with the GIL to look.
fn wake() {
    unsafe extern "C" fn look(_: *mut c_void) -> c_int {
        while let Some(finished) = service::take_finished() {
            // SAFETY: pending calls run with the GIL.
            unsafe { install(finished) };
        }
        // SAFETY: as above.
        unsafe { ask_anew() };
        0
    }
    // SAFETY: may be called without the GIL. If there are too many already, the next result asks again.
    unsafe { ffi::Py_AddPendingCall(Some(look), std::ptr::null_mut()) };
}

/// Asks for code in place of such as was left too often.
unsafe fn ask_anew() {
    loop {
        let next = match state().as_mut() {
            Some(state) => state.relearn.pop().inspect(|place| {
                state.asked.remove(place);
            }),
            None => None,
        };
        let Some((data, entry)) = next else { return };
        // SAFETY: data that is freed is forgotten first. GIL held, in a pending call.
        unsafe { request(data as *mut CodeData, entry) };
    }
}

/// Installs a result, or notes that there is none.
unsafe fn install(finished: Finished) {
    let started = Instant::now();
    let (id, result, elapsed) = match finished {
        Finished::Compiled {
            id,
            object,
            metadata,
            elapsed,
        } => (id, Ok((object, metadata)), elapsed),
        Finished::Refused { id, reason } => (id, Err((false, reason)), Duration::ZERO),
        Finished::Failed { id, message } => (id, Err((true, message)), Duration::ZERO),
        Finished::Dropped { id } => return drop_job(id),
    };
    let (waiting, settings) = {
        let mut state = state();
        let Some(state) = state.as_mut() else { return };
        let Some(waiting) = state.under_way.remove(&id) else {
            return;
        };
        (waiting, state.settings.clone())
    };
    // SAFETY: the artifact is ours; it holds its codes, so their data is live. GIL held.
    unsafe {
        let artifact = waiting.artifact;
        let (data, entry) = ((*artifact).data, (*artifact).entry);
        let placed = result.and_then(|(code, metadata)| {
            let metadata: Metadata =
                postcard::from_bytes(&metadata).map_err(|error| (true, error.to_string()))?;
            dump(&settings, &waiting.name, id, &metadata);
            let placed = object::place(CodeMemory::global(), &code)
                .map_err(|error| (true, error.to_string()))?;
            Ok((placed, metadata))
        });
        match placed {
            Ok((placed, metadata)) => {
                let bytes = placed.len;
                tracing::debug!(
                    tier = "optimizer",
                    entry,
                    bytes,
                    address = placed.entry.0 as usize,
                    micros = elapsed.as_micros() as u64,
                    instructions = metadata.hir_instructions,
                    exits = metadata.plans.len(),
                    "Finished compiling {}",
                    waiting.name
                );
                let code = placed.entry;
                (*artifact).uses = vec![0; metadata.plans.len()];
                (*artifact).metadata = metadata;
                (*artifact).placed = Some(placed);
                if (*data).leave != 0 {
                    // Opted out meanwhile.
                } else if entry == 0 {
                    CodeData::install_optimized(data, code);
                } else {
                    (*data).heat = 1;
                }
                if let Some(state) = state().as_mut() {
                    if let Some(before) = state.installed.get(data, entry) {
                        (*before).retired = true;
                    }
                    state.installed.insert(data, entry, artifact);
                    state.artifacts.push(artifact);
                    *state.installations.entry(data as usize).or_default() += 1;
                    state.totals.compiled += 1;
                    state.totals.code_bytes += bytes as u64;
                    state.totals.compile_time += elapsed;
                    state.totals.latency += waiting.since.elapsed();
                    state.stall(started.elapsed());
                }
                let needed: HashSet<u64> = (*artifact)
                    .metadata
                    .anchors
                    .iter()
                    .copied()
                    .chain(
                        (*artifact)
                            .metadata
                            .inlined
                            .iter()
                            .map(|index| (*(&(*artifact).codes)[*index as usize]).code as u64),
                    )
                    .collect();
                (*artifact).keep_only(|object| needed.contains(&object));
            }
            Err((defect, message)) => {
                if defect {
                    tracing::warn!("not optimized: {}: {message}", waiting.name);
                } else {
                    tracing::debug!("not optimized: {}: {message}", waiting.name);
                }
                if let Some(state) = state().as_mut() {
                    // What it was to take the place of is left too often.
                    if let Some(before) = state.installed.get(data, entry) {
                        state.retire(before);
                    }
                    if defect {
                        state.totals.failed += 1;
                    } else {
                        // What had not been executed yet was not counted: ask again when the function is much hotter. Other loops of it need not wait.
                        let refusals = state.refusals.entry((data as usize, entry)).or_default();
                        if message.starts_with(NOT_WORTH_IT) && *refusals < MOST_REFUSALS {
                            *refusals += 1;
                            let visits = (1 << (3 * *refusals)) - 1;
                            state.patience.insert((data as usize, entry), visits);
                            state.asked.remove(&(data as usize, entry));
                        }
                        (*data).heat = hotness::threshold();
                        state.totals.refused += 1;
                    }
                }
                (*artifact).keep_only(|_| false);
            }
        }
    }
}

/// A job came back untouched: its function may be hot again later.
fn drop_job(id: u64) {
    let mut state = state();
    let Some(state) = state.as_mut() else { return };
    let Some(waiting) = state.under_way.remove(&id) else {
        return;
    };
    // SAFETY: the artifact holds its code, so the data is live. The artifact itself is left: it never was anything.
    unsafe {
        let (data, entry) = ((*waiting.artifact).data, (*waiting.artifact).entry);
        state.asked.remove(&(data as usize, entry));
        // What it was to take the place of is left too often.
        if let Some(before) = state.installed.get(data, entry) {
            state.retire(before);
        }
        (*data).heat = hotness::threshold();
    }
}

fn dump(settings: &Settings, name: &str, id: u64, metadata: &Metadata) {
    let Some(folder) = &settings.dump_folder else {
        return;
    };
    let plain: String = name
        .rsplit(':')
        .next()
        .unwrap_or(name)
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '.' || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect();
    for (kind, text) in &metadata.dumps {
        let file = folder.join(format!("{id:04}-{plain}.{kind}"));
        if let Err(error) =
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text))
        {
            tracing::warn!("{} cannot be written: {error}", file.display());
        }
    }
}

/// An exit is being taken. Decides whether the code should be made anew.
///
/// # Safety
/// The artifact is the one that is left; GIL held.
pub(super) unsafe fn note_exit(artifact: *mut Artifact, plan: usize) {
    // SAFETY: see above.
    unsafe {
        let plan_of = &(&(*artifact).metadata.plans)[plan];
        let reason = plan_of.reason;
        EXITS[reason as usize].fetch_add(1, Ordering::Relaxed);
        let data = (*artifact).data;
        match reason {
            Reason::State => return,
            Reason::Raised => {
                let uses = &mut (&mut (*artifact).uses)[plan];
                *uses += 1;
                if uses.is_multiple_of(RAISES_TO_LOOK) && !(*artifact).retired {
                    let since = (*artifact).last_looked.replace(Instant::now());
                    if since.is_some_and(|since| since.elapsed() < RAISES_TO_LOOK * RAISES_OFTEN)
                        && let Some(state) = state().as_mut()
                    {
                        state.retire(artifact);
                    }
                }
                return;
            }
            Reason::Events | Reason::FrameObserved => {
                // Whose frames somebody takes again and again is better off in baseline code, for good: nobody asks anew.
                if reason == Reason::FrameObserved {
                    let uses = &mut (&mut (*artifact).uses)[plan];
                    *uses += 1;
                    if *uses >= EXITS_TO_RETIRE && !(*artifact).retired {
                        if let Some(state) = state().as_mut() {
                            state.retire(artifact);
                        }
                        return;
                    }
                }
                if (*artifact).entry != 0
                    || state()
                        .as_ref()
                        .is_some_and(|state| state.installed.has_loop(data))
                {
                    (*data).heat = HEAT_TO_RETURN;
                } else {
                    (*data).heat = (*data).heat.min(HEAT_AFTER_EXIT);
                }
                return;
            }
            _ => {}
        }
        let uses = &mut (&mut (*artifact).uses)[plan];
        *uses += 1;
        let uses = *uses;
        if (*artifact).retired {
            return;
        }
        let entry = (*artifact).entry;
        if entry != 0 {
            (*data).heat = HEAT_TO_RETURN;
        } else {
            (*data).heat = (*data).heat.min(HEAT_AFTER_EXIT);
        }
        if uses != EXITS_TO_LEARN && uses != EXITS_TO_RETIRE {
            return;
        }
        let Some(inner) = plan_of.frames.last() else {
            return;
        };
        let code = (*(&(*artifact).codes)[inner.code as usize]).code as u64;
        let mut state = state();
        let Some(state) = state.as_mut() else { return };
        let place = (data as usize, entry);
        if uses == EXITS_TO_RETIRE {
            if state.relearning(place) {
                state.retire(artifact);
            }
            return;
        }
        let attempts = state.attempts.entry(place).or_default();
        if *attempts >= MOST_ATTEMPTS {
            return;
        }
        *attempts += 1;
        // What baseline code has executed meanwhile it has feedback of. Where that was no help, the instruction goes the general way.
        let lesson = match reason {
            // The instruction behind it is none the worse.
            Reason::Destroyed => Some(inner.offset | DESTROYED),
            Reason::NeverExecuted | Reason::TypeGuard => {
                let lessons = (state.learnt)
                    .entry((data as usize, code, inner.offset))
                    .or_default();
                *lessons += 1;
                (*lessons > MOST_LESSONS).then_some(inner.offset)
            }
            _ => Some(inner.offset),
        };
        if let Some(offset) = lesson {
            let failed = state.failed.entry(data as usize).or_default();
            failed.push((code, offset));
        }
        state.totals.retired += 1;
        if state.settings.synchronous {
            state.retire(artifact);
            state.asked.remove(&place);
        } else if !state.relearning(place) {
            state.relearn.push(place);
            wake();
        }
    }
}

/// `PyEnum_Type`, if its objects are as large as what the optimizer knows of them (the layout is in no header).
fn enumerate_type() -> u64 {
    let class = &raw const ffi::PyEnum_Type;
    // SAFETY: a static class.
    let size = unsafe { (*class).tp_basicsize };
    if size == ENUMERATE_SIZE {
        class as u64
    } else {
        0
    }
}

/// Addresses of this process, for a job.
fn process(artifact: *mut Artifact) -> Process {
    let freelist = |field: usize| {
        // SAFETY: hotstamp runs in the main interpreter.
        let interp = unsafe { ffi::PyInterpreterState_Main() } as usize;
        (interp
            + std::mem::offset_of!(ffi::PyInterpreterState, object_state)
            + std::mem::offset_of!(ffi::_py_object_state, freelists)
            + field) as u64
    };
    let library = |name: &str| super::library::address_of(name).unwrap_or(0) as u64;
    Process {
        artifact: artifact as u64,
        plain_version: crate::hooks::tracing::plain_version_cell() as u64,
        pending: crate::hooks::sampler::more_than_a_question as *const () as u64,
        evaluator: crate::entry::evaluator_cell() as u64,
        int_type: (&raw const ffi::PyLong_Type) as u64,
        float_type: (&raw const ffi::PyFloat_Type) as u64,
        list_type: (&raw const ffi::PyList_Type) as u64,
        tuple_type: (&raw const ffi::PyTuple_Type) as u64,
        dict_type: (&raw const ffi::PyDict_Type) as u64,
        str_type: (&raw const ffi::PyUnicode_Type) as u64,
        list_iterator_type: (&raw const ffi::PyListIter_Type) as u64,
        tuple_iterator_type: (&raw const ffi::PyTupleIter_Type) as u64,
        range_iterator_type: (&raw const ffi::PyRangeIter_Type) as u64,
        enumerate_type: enumerate_type(),
        function_type: (&raw const ffi::PyFunction_Type) as u64,
        type_type: (&raw const ffi::PyType_Type) as u64,
        small_ints: refs::small_ints() as u64,
        // SAFETY: a static class, which says how.
        object_compare: unsafe { (&raw const ffi::PyBaseObject_Type.tp_richcompare).read() }
            .map_or(0, |function| function as usize as u64),
        true_object: (&raw const ffi::_Py_TrueStruct) as u64,
        false_object: (&raw const ffi::_Py_FalseStruct) as u64,
        none_object: (&raw const ffi::_Py_NoneStruct) as u64,
        not_implemented: (&raw const ffi::_Py_NotImplementedStruct) as u64,
        float_freelist: freelist(std::mem::offset_of!(ffi::_Py_freelists, floats)),
        int_freelist: freelist(std::mem::offset_of!(ffi::_Py_freelists, ints)),
        box_int: leave::box_int as *const () as u64,
        box_float: leave::box_float as *const () as u64,
        dealloc: ffi::_Py_Dealloc as *const () as u64,
        dealloc_at: leave::dealloc_at as *const () as u64,
        exit: leave::leave as *const () as u64,
        clear_frame: ffi::_PyEval_FrameClearAndPop as *const () as u64,
        pop_frame: ffi::_PyThreadState_PopFrame as *const () as u64,
        baseline: leave::run_baseline as *const () as u64,
        push_chunk: leave::push_chunk as *const () as u64,
        new_instance: leave::new_instance as *const () as u64,
        list_backwards: leave::list_backwards as *const () as u64,
        gc_track: ffi::PyObject_GC_Track as *const () as u64,
        reverse_items: leave::reverse_items as *const () as u64,
        make_tuple: leave::make_tuple as *const () as u64,
        make_list: lists::make_list as *const () as u64,
        list_append: lists::append as *const () as u64,
        list_pop: lists::pop as *const () as u64,
        iterator: lists::iterator as *const () as u64,
        number_op: leave::number_op as *const () as u64,
        pow: library("pow"),
        sin: library("sin"),
        cos: library("cos"),
    }
}

//! Installed optimized code: what it consists of, what it keeps alive, and how often it was left.

use std::collections::HashMap;

use std::time::Instant;

use hotstamp_job::{Job, Metadata, ObjectKind};
use hotstamp_layout::ffi::PyObject;
use hotstamp_layout::refs;

use super::object::Placed;
use crate::code_data::CodeData;
use crate::site::CodePtr;

/// One piece of optimized code. Its address is a constant of the code, so it never moves, and it is kept for as long as frames might run the code.
#[derive(Debug)]
pub struct Artifact {
    /// Number of the job.
    pub id: u64,
    /// What is compiled.
    pub data: *mut CodeData,
    /// Where it is entered: 0 for calls, else a loop head.
    pub entry: u32,
    /// Data of the job's codes, by index.
    pub codes: Vec<*mut CodeData>,
    /// Plans, and what else the optimizer said.
    pub metadata: Metadata,
    /// Where the code is, once it is installed.
    pub placed: Option<Placed>,
    /// How often each plan was used.
    pub uses: Vec<u32>,
    /// When a place that raised often was looked at.
    pub last_looked: Option<Instant>,
    /// It is no longer what calls and loops reach.
    pub retired: bool,
    /// Objects that it keeps alive: inlined functions, code objects, globals whose value is in the code.
    anchors: Vec<*mut PyObject>,
}

// SAFETY: artifacts are used under the GIL only.
unsafe impl Send for Artifact {}

impl Artifact {
    /// A record for a job to come. Leaked: see the type.
    pub fn new(id: u64, data: *mut CodeData, entry: u32) -> *mut Artifact {
        Box::into_raw(Box::new(Artifact {
            id,
            data,
            entry,
            codes: Vec::new(),
            metadata: Metadata::default(),
            placed: None,
            uses: Vec::new(),
            last_looked: None,
            retired: false,
            anchors: Vec::new(),
        }))
    }

    /// Takes references to all codes, functions and values that a job names, so that nothing it was told dies while it is compiled.
    ///
    /// # Safety
    /// The job was just made from live objects; GIL held.
    pub unsafe fn hold(&mut self, job: &Job) {
        self.codes = job
            .codes
            .iter()
            .map(|code| code.data as *mut CodeData)
            .collect();
        // The others are compared by address alone.
        let held = |object: &&hotstamp_job::Object| {
            matches!(
                object.kind,
                ObjectKind::Function { .. } | ObjectKind::Value(_) | ObjectKind::Builtin(_)
            )
        };
        let objects = job.objects.iter().filter(held).map(|object| object.address);
        for address in job.codes.iter().map(|code| code.address).chain(objects) {
            let object = address as *mut PyObject;
            // SAFETY: live, see above.
            unsafe { refs::incref(object) };
            self.anchors.push(object);
        }
    }

    /// Gives up what the finished code does not need, or everything.
    ///
    /// # Safety
    /// GIL held; nothing runs or will run the code that needs what is given up. Releasing may run Python code.
    pub unsafe fn keep_only(&mut self, needed: impl Fn(u64) -> bool) {
        let (keep, drop): (Vec<_>, Vec<_>) = std::mem::take(&mut self.anchors)
            .into_iter()
            .partition(|object| needed(*object as u64));
        self.anchors = keep;
        for object in drop {
            // SAFETY: ours, from `hold`.
            unsafe { refs::decref(object) };
        }
    }

    /// Where the code begins, if it is installed.
    pub fn code(&self) -> Option<CodePtr> {
        self.placed.as_ref().map(|placed| placed.entry)
    }
}

/// Installed code by function and entry.
#[derive(Debug, Default)]
pub struct Installed {
    by_place: HashMap<(usize, u32), *mut Artifact>,
}

// SAFETY: used under the GIL only.
unsafe impl Send for Installed {}

impl Installed {
    /// The code for an entry of a function.
    pub fn get(&self, data: *mut CodeData, entry: u32) -> Option<*mut Artifact> {
        self.by_place.get(&(data as usize, entry)).copied()
    }

    /// Makes code the one for its entry.
    pub fn insert(&mut self, data: *mut CodeData, entry: u32, artifact: *mut Artifact) {
        self.by_place.insert((data as usize, entry), artifact);
    }

    /// Takes code out.
    pub fn remove(&mut self, data: *mut CodeData, entry: u32) {
        self.by_place.remove(&(data as usize, entry));
    }

    /// Takes all code of a function out.
    pub fn forget(&mut self, data: *mut CodeData) {
        self.by_place
            .retain(|(place, _), _| *place != data as usize);
    }

    /// All code of a function: for its calls, and for loops of it.
    pub fn of(&self, data: *mut CodeData) -> impl Iterator<Item = *mut Artifact> {
        self.by_place
            .iter()
            .filter(move |((place, _), _)| *place == data as usize)
            .map(|(_, artifact)| *artifact)
    }

    /// Functions whose calls lead to optimized code.
    pub fn functions(&self) -> impl Iterator<Item = *mut CodeData> {
        self.by_place
            .keys()
            .filter(|(_, entry)| *entry == 0)
            .map(|(place, _)| *place as *mut CodeData)
    }

    /// Whether a function has code for a loop.
    pub fn has_loop(&self, data: *mut CodeData) -> bool {
        self.by_place
            .keys()
            .any(|(place, entry)| *place == data as usize && *entry != 0)
    }
}

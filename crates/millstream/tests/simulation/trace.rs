use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happened in a run: as one number, as counts of what is worth counting, and line by line where somebody wants to read it.
#[derive(Clone)]
pub(crate) struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    aloud: bool,
    hash: u64,
    counts: BTreeMap<String, u64>,
}

impl Trace {
    pub(crate) fn new(aloud: bool) -> Self {
        let hash = 0xcbf2_9ce4_8422_2325;
        Self { inner: Arc::new(Mutex::new(Inner { aloud, hash, counts: BTreeMap::new() })) }
    }

    /// Notes what happened. Its order counts.
    pub(crate) fn note(&self, line: impl Display) {
        self.lock().note(&line.to_string());
    }

    /// Notes an event and counts its kind.
    pub(crate) fn event(&self, kind: &str, detail: impl Display) {
        let mut inner = self.lock();
        inner.note(&format!("{kind}: {detail}"));
        match inner.counts.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(inner.counts.insert(kind.to_owned(), 1)),
        }
    }

    /// A number that two runs share only if the same happened in both (FNV-1a).
    pub(crate) fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// How often each kind of event happened.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.lock().counts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&mut self, line: &str) {
        if self.aloud {
            println!("{line}");
        }
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

//! The state of an application on this machine.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::Config;

/// The directory of an application's stores.
#[derive(Debug)]
pub struct LocalState {
    dir: PathBuf,
}

impl LocalState {
    pub(super) fn of(config: &Config) -> Self {
        Self { dir: config.data.dir.join("state").join(&config.engine.application_id) }
    }

    /// The directory, there or not.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether there is any.
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// Deletes it, and says whether there was any.
    pub(super) fn delete(&self) -> anyhow::Result<bool> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            outcome => outcome.map(|()| true).with_context(|| format!("cannot delete {}", self.dir.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_applications_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = LocalState { dir: dir.path().join("state/app") };
        assert!(!state.exists() && !state.delete().expect("nothing is there"));
        std::fs::create_dir_all(state.dir().join("store/0")).expect("created");
        std::fs::create_dir_all(dir.path().join("state/other")).expect("created");
        assert!(state.exists() && state.delete().expect("deleted") && !state.exists());
        assert!(dir.path().join("state/other").is_dir());
    }
}

//! Directories that are still there after a power cut.
//!
//! A file that is synced is on the disk, but its name is not: that is in its directory, which has to be synced too, and the directory's own
//! name in the one above. Who makes or renames a file or directory that must last does it through here, or calls [`sync_dir`].

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Creates a directory with all that are missing above it, as [`std::fs::create_dir_all`] does. When this returns, all of them are on the
/// disk.
///
/// # Errors
/// Where one of them cannot be created, or the directory above it cannot be synced.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    create(dir, &mut sync_dir)
}

/// Makes sure that the names in a directory are on the disk as they are now.
///
/// # Errors
/// Where the directory cannot be opened or synced; the error names it.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("directory {} cannot be synced: {error}", dir.display()));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(named)?;
    tracing::debug!(dir = %dir.display(), "a directory is synced");
    Ok(())
}

/// Each directory's name is on the disk before anything is made in it. So all above one that exists are, but its own may not be: it may
/// have been made by a process that was killed right behind that.
fn create(dir: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if dir.is_dir() {
        return match sync(above(dir)) {
            // It lies where we could not have made it.
            Err(error) if is_foreign(&error) => Ok(()),
            outcome => outcome,
        };
    }
    if above(dir) != dir {
        create(above(dir), sync)?;
    }
    match std::fs::create_dir(dir) {
        // Somebody else was quicker.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        created => created?,
    }
    sync(above(dir))
}

/// The directory that holds the name of this one.
fn above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => dir,
    }
}

/// Whether a directory is not this user's to sync, or of a file system that has no such thing.
fn is_foreign(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Creates a directory, and gives which directories were synced, relative to `root`.
    fn synced(root: &Path, dir: &str, fails: Option<ErrorKind>) -> io::Result<Vec<PathBuf>> {
        let mut synced = Vec::new();
        create(&root.join(dir), &mut |dir| {
            synced.push(dir.strip_prefix(root).unwrap_or(Path::new("..")).to_owned());
            fails.map_or(Ok(()), |kind| Err(kind.into()))
        })?;
        assert!(root.join(dir).is_dir());
        Ok(synced)
    }

    #[test]
    fn every_directory_that_got_a_name_is_synced_from_the_top_down() {
        let root = tempfile::tempdir().unwrap();
        let dirs = |dirs: &[&str]| dirs.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(synced(root.path(), "a/b/c", None).unwrap(), dirs(&["..", "", "a", "a/b"]));
        assert_eq!(synced(root.path(), "a/b/d", None).unwrap(), dirs(&["a", "a/b"]), "a process before may have been killed");
        assert_eq!(synced(root.path(), "a/b", None).unwrap(), dirs(&["a"]));
    }

    #[test]
    fn what_cannot_be_synced_is_an_error_unless_it_is_somebody_elses() {
        let root = tempfile::tempdir().unwrap();
        assert!(synced(root.path(), "a", Some(ErrorKind::PermissionDenied)).is_err(), "it was made here");
        assert!(synced(root.path(), "a", Some(ErrorKind::PermissionDenied)).is_ok());
        assert!(synced(root.path(), "a", Some(ErrorKind::Other)).is_err());
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(synced(root.path(), "file", None).is_err() && synced(root.path(), "file/below", None).is_err());
    }

    #[test]
    fn directories_of_real_file_systems_can_be_synced() {
        let root = tempfile::tempdir().unwrap();
        create_dir_all(&root.path().join("a/b")).unwrap();
        assert!(root.path().join("a/b").is_dir());
        create_dir_all(Path::new("/")).unwrap();
        create_dir_all(Path::new(".")).unwrap();
        let error = sync_dir(&root.path().join("none")).unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("none cannot be synced"), "{error}");
    }
}

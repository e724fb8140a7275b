//! The identity of this instance, kept in its data directory.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use millstream_rocksdb::durable;

const FILE: &str = "instance-id";
const MEMBER_FILE: &str = "group-member";

/// The id in the directory; a new one is made where there is none. It is on the disk then.
pub(super) fn id(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join(FILE);
    let id = read_or_create(dir, &path)?;
    // Also where it was there: a process before this one may have been killed right behind the rename.
    durable::sync_dir(dir).with_context(|| format!("cannot make {} last", path.display()))?;
    Ok(id)
}

/// A number that tells this life of the instance from every other.
pub(super) fn incarnation() -> u64 {
    random()
}

/// What is known of the last life of the instance.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LastLife {
    /// What the group called it.
    pub(super) member: String,
    /// Where others reached it.
    pub(super) endpoint: Option<String>,
}

/// The last life of the instance, where it is known.
pub(super) fn last_life(dir: &Path) -> Option<LastLife> {
    let text = fs::read_to_string(dir.join(MEMBER_FILE)).ok()?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
    Some(LastLife { member: lines.next()?, endpoint: lines.next() })
}

/// Keeps what the group calls this instance, and where others reach it. It may be lost with the machine: then the group has to miss the member first.
pub(super) fn remember_life(dir: &Path, member: &str, endpoint: Option<&str>) -> std::io::Result<()> {
    let unfinished = dir.join(format!("{MEMBER_FILE}.new"));
    fs::write(&unfinished, format!("{member}\n{}\n", endpoint.unwrap_or_default()))?;
    fs::rename(&unfinished, dir.join(MEMBER_FILE))
}

/// The standard library seeds its hashers from the operating system's randomness.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

fn read_or_create(dir: &Path, path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if is_id(text.trim()) => Ok(text.trim().to_owned()),
        Ok(text) => {
            anyhow::bail!("{} holds {text:?}, which is no instance id: delete the file, and a new id is made", path.display())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => create(dir, path),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn create(dir: &Path, path: &Path) -> anyhow::Result<String> {
    let id = format!("{:016x}", random());
    let unfinished = dir.join(format!("{FILE}.new"));
    let written = fs::File::create(&unfinished).and_then(|mut file| {
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    });
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(id)
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_life_is_remembered_also_as_earlier_versions_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_life(dir.path()), None);
        for endpoint in [Some("10.0.0.1:7071"), None] {
            remember_life(dir.path(), "member-1", endpoint).unwrap();
            let life = LastLife { member: "member-1".to_owned(), endpoint: endpoint.map(str::to_owned) };
            assert_eq!(last_life(dir.path()), Some(life));
        }
        fs::write(dir.path().join(MEMBER_FILE), "member-2").unwrap();
        assert_eq!(last_life(dir.path()), Some(LastLife { member: "member-2".to_owned(), endpoint: None }));
    }

    #[test]
    fn an_id_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = id(dir.path()).unwrap();
        assert_eq!(id(dir.path()).unwrap(), first);
        fs::write(dir.path().join(FILE), "no id!").unwrap();
        assert!(id(dir.path()).unwrap_err().to_string().contains("delete the file"));
    }
}

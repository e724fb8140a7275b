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

/// The last life of the instance, where it is known. What is written there of another instance, whose directory this was copied from, is none.
pub(super) fn last_life(dir: &Path, instance: &str) -> Option<LastLife> {
    let text = fs::read_to_string(dir.join(MEMBER_FILE)).ok()?;
    let mut lines = text.lines().map(|line| Some(line.trim()).filter(|line| !line.is_empty()));
    let (member, endpoint, of) = (lines.next()??, lines.next().flatten(), lines.next().flatten());
    // Earlier versions wrote the member alone.
    of.is_none_or(|of| of == instance).then(|| LastLife { member: member.to_owned(), endpoint: endpoint.map(str::to_owned) })
}

/// Keeps what the group calls this instance, and where others reach it. It may be lost with the machine: then the group has to miss the member first.
pub(super) fn remember_life(dir: &Path, instance: &str, life: &LastLife) -> std::io::Result<()> {
    let LastLife { member, endpoint } = life;
    let unfinished = dir.join(format!("{MEMBER_FILE}.new"));
    fs::write(&unfinished, format!("{member}\n{}\n{instance}\n", endpoint.as_deref().unwrap_or_default()))?;
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
    fn the_last_life_is_remembered_also_as_earlier_versions_wrote_it_and_is_not_that_of_another_instance() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_life(dir.path(), "a"), None);
        for endpoint in [Some("10.0.0.1:7071"), None] {
            let life = LastLife { member: "member-1".to_owned(), endpoint: endpoint.map(str::to_owned) };
            remember_life(dir.path(), "a", &life).unwrap();
            assert_eq!(last_life(dir.path(), "b"), None);
            assert_eq!(last_life(dir.path(), "a"), Some(life));
        }
        fs::write(dir.path().join(MEMBER_FILE), "member-2").unwrap();
        assert_eq!(last_life(dir.path(), "a"), Some(LastLife { member: "member-2".to_owned(), endpoint: None }));
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

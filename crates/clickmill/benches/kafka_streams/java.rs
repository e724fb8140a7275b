//! The Java side: `bench/kafka-streams`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A command that runs a class of it.
pub(crate) fn class(name: &str) -> Command {
    static CLASS_PATH: OnceLock<String> = OnceLock::new();
    let class_path = CLASS_PATH.get_or_init(build);
    let mut java = Command::new("java");
    java.args(["-Xmx2g", "-cp", class_path]).arg(format!("clickmill.bench.{name}"));
    java
}

fn build() -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../bench/kafka-streams/build.sh");
    let built = Command::new(script).output().expect("the build of the Java side can be started");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8_lossy(&built.stdout).trim().to_owned()
}

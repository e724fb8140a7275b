//! Keeps `docs/configuration.md` complete: it is what the table of options says, to the letter.

use std::path::Path;

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = clickmill::config::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/configuration.md");
    assert!(
        written == expected,
        "docs/configuration.md differs from the table of options; UPDATE_DOCS=1 make test writes it anew"
    );
}

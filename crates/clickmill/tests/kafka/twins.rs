//! A copy of the data directory of an instance that runs: it takes nothing from the original.

use std::fs;
use std::path::Path;

use crate::clicks::Clicks;
use crate::scenario::Scenario;
use crate::{cluster, counts};

#[test]
fn a_copy_of_a_data_directory_stops_and_names_the_original() {
    let scenario = Scenario::new("twins", cluster::shared().bootstrap_servers(), Clicks::mixed(5_000, 1));
    let mut original = scenario.instance(0);
    original.start_and_wait();
    scenario.write_all();
    original.wait_until_counted();
    let id = fs::read_to_string(original.data_dir().join("instance-id")).unwrap();

    // With and without what the original has written down of itself.
    for (number, files) in [(1, &["instance-id", "group-member"][..]), (2, &["instance-id"])] {
        let mut copy = scenario.instance(number);
        fs::create_dir_all(copy.data_dir()).unwrap();
        for file in files {
            copy_file(&original.data_dir(), &copy.data_dir(), file);
        }
        copy.start();
        assert_eq!(copy.wait_for_end().code(), Some(2));
        let log = copy.log();
        for part in [id.trim(), "is running already", "data directory of its own"] {
            assert!(log.contains(part), "{part} is not in {log}");
        }
    }
    // With an id of its own it is another instance, whatever the original has written down.
    let mut other = scenario.instance(3);
    fs::create_dir_all(other.data_dir()).unwrap();
    copy_file(&original.data_dir(), &other.data_dir(), "group-member");
    other.start_and_wait();
    for is_not in ["the membership was lost", "another process has joined"] {
        assert!(!original.log().contains(is_not), "{}", original.log());
    }
    counts::check(&scenario);
    other.stop();
    original.stop();
    // Nobody is there any more: what was the copy is the instance now.
    let mut copy = scenario.instance(1);
    copy.start_and_wait();
    counts::check(&scenario);
    copy.stop();
}

fn copy_file(from: &Path, to: &Path, file: &str) {
    fs::copy(from.join(file), to.join(file)).unwrap();
}

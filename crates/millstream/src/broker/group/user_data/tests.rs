use proptest::prelude::*;

use super::super::assignor::{Absence, Assignment, Roles};
use super::super::directory::InstanceInfo;
use super::*;

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9.-]{0,12}".prop_map(Arc::from)
}

fn task() -> impl Strategy<Value = TopicPartition> {
    (0..3_u8, any::<u32>()).prop_map(|(topic, partition)| TopicPartition::new(format!("topic-{topic}"), Partition(partition)))
}

fn some_tasks() -> impl Strategy<Value = BTreeSet<TopicPartition>> {
    prop::collection::btree_set(task(), 0..8)
}

fn directory() -> impl Strategy<Value = Directory> {
    use prop::collection::btree_map;
    let info = (name(), any::<u64>(), prop::option::of(name()), prop::option::of(name()), any::<u32>());
    let info = info.prop_map(|(member, incarnation, endpoint, rack, threads)| InstanceInfo {
        member,
        incarnation,
        endpoint,
        rack,
        threads,
    });
    let roles = (some_tasks(), some_tasks(), some_tasks());
    let roles = roles.prop_map(|(active, standby, warmup)| Roles { active, standby, warmup });
    let absence = (any::<i64>(), some_tasks()).prop_map(|(until_ms, copies)| Absence { until_ms, copies });
    let moving = btree_map(task(), name(), 0..6);
    let assignment = (btree_map(name(), roles, 0..4), moving, btree_map(name(), absence, 0..3), any::<Option<i64>>())
        .prop_map(|(members, moving, absent, probe_at_ms)| Assignment { members, moving, absent, probe_at_ms });
    (any::<i32>(), btree_map(name(), info, 0..4), btree_map(name(), any::<u32>(), 0..3), assignment)
        .prop_map(|(generation, instances, absent, assignment)| Directory { generation, instances, absent, assignment })
}

fn member_info() -> impl Strategy<Value = MemberInfo> {
    let copy = (any::<Option<i64>>(), any::<bool>());
    let copy = copy.prop_map(|(position, is_caught_up)| StoreCopy { position: position.map(Offset), is_caught_up });
    let names = (name(), prop::option::of(name()), prop::option::of(name()));
    let numbers = (any::<u64>(), any::<u32>(), any::<bool>(), any::<u32>());
    (names, numbers, prop::collection::btree_map(task(), copy, 0..8), directory()).prop_map(
        |(names, numbers, copies, directory)| {
            let ((instance, endpoint, rack), (incarnation, wanted, is_leaving, threads)) = (names, numbers);
            let directory = Arc::new(directory);
            MemberInfo { instance, incarnation, wanted, is_leaving, threads, endpoint, rack, copies, directory }
        },
    )
}

/// What a later program writes: a field more.
#[derive(Serialize)]
struct Later<'a, T>(&'a T, &'a str, u64);

proptest! {
    #[test]
    fn what_is_written_is_read_again(info in member_info(), directory in directory()) {
        prop_assert_eq!(decode::<MemberInfo>(&encode(&info)), Some(info));
        prop_assert_eq!(decode::<Directory>(&encode(&directory)), Some(directory));
    }

    #[test]
    fn what_a_later_program_adds_is_left_unread(info in member_info(), directory in directory(), more in ".*", number: u64) {
        prop_assert_eq!(decode::<MemberInfo>(&encode(&Later(&info, &more, number))), Some(info));
        prop_assert_eq!(decode::<Directory>(&encode(&Later(&directory, &more, number))), Some(directory));
    }

    #[test]
    fn another_version_is_not_read(directory in directory(), version in any::<u8>().prop_filter("ours", |version| *version != VERSION)) {
        let mut bytes = encode(&directory);
        bytes[0] = version;
        prop_assert_eq!(decode::<Directory>(&bytes), None);
    }

    #[test]
    fn what_is_cut_short_is_not_read(info in member_info(), cut: prop::sample::Index) {
        let bytes = encode(&info);
        prop_assert_eq!(decode::<MemberInfo>(&bytes[..cut.index(bytes.len())]), None);
    }

    /// It may be read as something else, and must not be the end of the program.
    #[test]
    fn what_is_garbled_does_no_harm(info in member_info(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = encode(&info);
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        decode::<MemberInfo>(&bytes);
        decode::<Directory>(&bytes);
    }

    #[test]
    fn bytes_of_anybody_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..300), is_ours: bool) {
        if let (Some(first), true) = (bytes.first_mut(), is_ours) {
            *first = VERSION;
        }
        decode::<MemberInfo>(&bytes);
        decode::<Directory>(&bytes);
    }

    /// A block that is well packed and makes no sense.
    #[test]
    fn a_block_of_anything_does_no_harm(plain in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![VERSION];
        bytes.extend(lz4_flex::block::compress_prepend_size(&plain));
        decode::<MemberInfo>(&bytes);
        decode::<Directory>(&bytes);
    }
}

const MEMBERS: usize = 32;
const PARTITIONS: u32 = 1_024;

/// A group as large as any that is thought of, with long names: clicks and counts on 1,024 partitions each, a standby of each store.
fn large() -> (Directory, Vec<MemberInfo>) {
    let topic = |name: &str| Arc::<str>::from(format!("{name:-<100}"));
    let (clicks, counts) = (topic("clicks"), topic("counts"));
    // Each topic and each role has an order of its own, so that no list is like another.
    let tasks = |topic: &Arc<str>, member: usize, order: u32| {
        let (topic, order) = (topic.clone(), (order + u32::from(topic.starts_with("clicks"))) << 20);
        let own = (0..PARTITIONS).filter(move |partition| scattered(*partition | order) == member);
        own.map(move |partition| TopicPartition::new(topic.clone(), Partition(partition)))
    };
    let instance =
        |member: usize| Arc::<str>::from(format!("{:08x}-clickmill-{member}.clickmill.svc.cluster.local", member * 0x9e37_79b9));
    let mut directory = Directory { generation: 1_000, ..Directory::default() };
    for member in 0..MEMBERS {
        let info = InstanceInfo {
            member: format!("clickmill-{member}-0b9b1c5e-5a0e-4f43-9a4b-{:012x}", member * 0x0123_4567_89ab).into(),
            incarnation: (member as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            endpoint: Some(format!("http://clickmill-{member}.clickmill.svc.cluster.local:8080").into()),
            rack: Some(format!("eu-central-1{}", member % 3).into()),
            threads: 8,
        };
        directory.instances.insert(instance(member), info);
        let standby = tasks(&counts, member, 2).collect();
        let roles =
            Roles { active: tasks(&clicks, member, 0).chain(tasks(&counts, member, 0)).collect(), standby, ..Roles::default() };
        directory.assignment.members.insert(instance(member), roles);
    }
    let told = Arc::new(directory.clone());
    let info = |member: usize| {
        let InstanceInfo { endpoint, rack, threads, .. } = directory.instances[&instance(member)].clone();
        let here = tasks(&counts, member, 0).chain(tasks(&counts, member, 2));
        // Positions are as different as can be: they do not compress.
        let position = |partition: u32| Offset((mixed(partition) >> 20) as i64);
        let copies =
            here.map(|task| (task.clone(), StoreCopy { position: Some(position(task.partition.0)), is_caught_up: true }));
        let (copies, directory) = (copies.collect(), told.clone());
        MemberInfo {
            instance: instance(member),
            incarnation: u64::MAX,
            wanted: 1_000,
            is_leaving: false,
            threads,
            endpoint,
            rack,
            copies,
            directory,
        }
    };
    let infos = (0..MEMBERS).map(info).collect();
    (directory, infos)
}

/// Where a partition is after many moves: in no order that a compressor finds.
fn scattered(partition: u32) -> usize {
    (mixed(partition) % MEMBERS as u64) as usize
}

/// The mixing of SplitMix64.
fn mixed(number: u32) -> u64 {
    let z = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a member's own subscription or assignment takes in Kafka's encoding, beside the user data.
fn kafka_bytes(topics: usize, partitions: usize) -> usize {
    topics * (2 + 100 + 4) + partitions * 4 + 100
}

#[test]
fn a_large_group_fits_into_the_record_that_a_coordinator_keeps_of_it() {
    let (directory, infos) = large();
    let held = 2 * PARTITIONS as usize;
    let assignments = MEMBERS * (encode(&directory).len() + kafka_bytes(2, 0)) + held * 4;
    let metadata: usize = infos.iter().map(|info| encode(info).len() + kafka_bytes(4, 0)).sum::<usize>() + held * 4;
    println!("directory {} B, assignments {assignments} B, metadata {metadata} B", encode(&directory).len());
    // All of it is one record, and a coordinator takes a megabyte.
    assert!(assignments + metadata < 900_000, "assignments {assignments} B, metadata {metadata} B");
}

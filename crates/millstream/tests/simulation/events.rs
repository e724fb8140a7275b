//! What happens to instances, topics and disks from outside.

use millstream::broker::Broker;
use millstream::record::{Partition, TopicPartition};

use crate::disk::Disk;
use crate::instance::Instance;
use crate::scenario::{APPLICATION, CLICKS, CLOSED};
use crate::world::{Seat, World};

/// The most partitions that the clicks topic grows to.
const MOST_PARTITIONS: u32 = 6;

/// A commit whose outcome was open takes place after all, or does not.
pub(crate) const OPEN_COMMITS: &str = "open transaction commits";
pub(crate) const OPEN_ABORTS: &str = "open transaction aborts";

type Event = fn(&mut World, usize) -> bool;

/// Every event with its name and weight.
pub(crate) const EVENTS: &[(&str, u64, Event)] = &[
    ("killed", 3, World::is_killed),
    ("closed", 3, World::is_closed),
    ("closed after its threads were stuck", 2, World::is_closed_late),
    ("stalls", 3, World::stalls),
    ("zombie", 3, World::becomes_zombie),
    ("replaced while it runs", 1, World::is_replaced),
    ("dead expires", 4, World::dead_expires),
    ("rebalance", 3, World::is_rebalanced),
    ("rebalance times out", 3, World::rebalance_times_out),
    ("taken out of the group", 3, World::is_taken_out),
    ("misses others", 3, World::misses_others),
    ("broker full", 1, World::broker_fills),
    ("broker has room", 2, World::broker_has_room),
    ("disk full", 1, World::disk_fills),
    ("disk has room", 2, World::disk_has_room),
    ("partition falls silent", 2, World::falls_silent),
    ("topic grows", 1, World::topic_grows),
    ("offsets burned", 2, World::offsets_burn),
];

impl World {
    /// Lets one of the events happen to a random instance, if it can.
    pub(super) fn cause_event(&mut self) {
        let total = EVENTS.iter().map(|(_, weight, _)| weight).sum();
        let mut left = self.random.below(total);
        let seat = self.random.index(self.seats.len());
        for (name, weight, event) in EVENTS {
            if left < *weight {
                if event(self, seat) {
                    self.trace.event(name, seat);
                }
                return;
            }
            left -= weight;
        }
    }

    /// Decides an open transaction, if there is one and it is its time.
    pub(super) fn settle_open(&mut self) {
        let Some(&open) = self.around.broker.open_transactions().first() else { return };
        let commit = self.random.one_in(2);
        if self.random.one_in(3) && self.around.broker.settle(open, commit).is_ok() {
            self.trace.event(if commit { OPEN_COMMITS } else { OPEN_ABORTS }, open);
        }
    }

    fn is_killed(&mut self, seat: usize) -> bool {
        let is_up = matches!(self.seats[seat], Seat::Up(_));
        if is_up {
            self.crash(seat);
        }
        is_up
    }

    /// Its threads end with a commit of what they had before they were stuck. Their tasks may have been lost meanwhile.
    fn is_closed_late(&mut self, seat: usize) -> bool {
        let closes_at = self.tick + self.random.between(2, 50);
        let is_taken_out = self.random.one_in(2);
        let Seat::Up(instance) = &mut self.seats[seat] else { return false };
        instance.closes_at = Some(closes_at);
        if is_taken_out {
            instance.broker.expire_members();
        }
        true
    }

    pub(super) fn is_closed(&mut self, seat: usize) -> bool {
        let until = self.tick + self.random.below(40);
        let Seat::Up(instance) = &self.seats[seat] else { return false };
        let down = Seat::Down { disk: instance.disk.clone(), until };
        if let Seat::Up(instance) = std::mem::replace(&mut self.seats[seat], down) {
            let (disk, grave) = instance.close();
            if grave.is_some() {
                disk.crash(&mut self.random);
            }
            self.graves.extend(grave);
        }
        true
    }

    fn stalls(&mut self, seat: usize) -> bool {
        let until = self.tick + self.random.below(60);
        let Seat::Up(instance) = &mut self.seats[seat] else { return false };
        instance.stalled_until = until;
        true
    }

    /// It stalls so long that its memberships expire, and then goes on.
    fn becomes_zombie(&mut self, seat: usize) -> bool {
        let stalls = self.stalls(seat);
        if let Seat::Up(instance) = &self.seats[seat] {
            instance.broker.expire_members();
        }
        stalls
    }

    /// Another process with its name and a disk of its own takes over while it goes on for a while.
    fn is_replaced(&mut self, seat: usize) -> bool {
        let until = self.tick + self.random.between(1, 10);
        if !matches!(self.seats[seat], Seat::Up(_)) {
            return false;
        }
        let successor = Instance::start(seat, Disk::new(self.around.faults.clone()), &self.around);
        if let Seat::Up(ghost) = std::mem::replace(&mut self.seats[seat], Seat::Up(successor)) {
            self.ghosts.push((ghost, until));
        }
        true
    }

    fn dead_expires(&mut self, _: usize) -> bool {
        let Some(grave) = self.graves.pop() else { return false };
        grave.expire_members();
        true
    }

    fn is_rebalanced(&mut self, _: usize) -> bool {
        self.around.broker.force_rebalance(APPLICATION);
        true
    }

    /// Whoever has not joined again is dropped.
    fn rebalance_times_out(&mut self, _: usize) -> bool {
        self.around.broker.time_out_rebalance(APPLICATION)
    }

    /// It has not heard of some others for long, or hears of all again.
    fn misses_others(&mut self, seat: usize) -> bool {
        let Seat::Up(instance) = &self.seats[seat] else { return false };
        let random = &mut self.random;
        instance.miss_others(|| random.one_in(2));
        true
    }

    /// Another member takes it for dead while it lives.
    fn is_taken_out(&mut self, seat: usize) -> bool {
        let Seat::Up(instance) = &self.seats[seat] else { return false };
        instance.broker.expire_members();
        true
    }

    fn broker_fills(&mut self, _: usize) -> bool {
        self.around.broker.storage().set_full(true);
        true
    }

    fn broker_has_room(&mut self, _: usize) -> bool {
        self.around.broker.storage().set_full(false);
        true
    }

    fn disk_fills(&mut self, seat: usize) -> bool {
        self.disk_of(seat).set_full(true);
        true
    }

    fn disk_has_room(&mut self, seat: usize) -> bool {
        self.disk_of(seat).set_full(false);
        true
    }

    fn disk_of(&self, seat: usize) -> &Disk {
        match &self.seats[seat] {
            Seat::Up(instance) => &instance.disk,
            Seat::Down { disk, .. } => disk,
        }
    }

    fn falls_silent(&mut self, _: usize) -> bool {
        let partition = Partition(self.random.below(self.partitions.into()) as u32);
        let until = self.tick + self.random.between(10, 150);
        self.clicks.silent_until.insert(partition, until);
        true
    }

    fn topic_grows(&mut self, _: usize) -> bool {
        let larger = self.partitions + 1;
        let may_grow = !self.around.scenario.keyed && larger <= MOST_PARTITIONS;
        let grows = may_grow && self.around.broker.add_partitions(CLICKS, larger).is_ok();
        self.partitions += u32::from(grows);
        grows
    }

    fn offsets_burn(&mut self, _: usize) -> bool {
        let scenario = &self.around.scenario;
        let topics = [CLICKS.to_owned(), CLOSED.to_owned(), scenario.aggregate_input(), scenario.changelog()];
        let topic = &topics[self.random.index(topics.len())];
        let Ok(Some(described)) = self.around.broker.describe_topic(topic) else { return false };
        let partition = Partition(self.random.below(described.partitions.into()) as u32);
        let count = self.random.between(1, 3) as u32;
        self.around.broker.burn_offsets(&TopicPartition::new(topic.as_str(), partition), count).is_ok()
    }
}

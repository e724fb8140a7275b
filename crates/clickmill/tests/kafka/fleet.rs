//! Instances that keep copies of each other's counts, with clicks flowing and everything being asked of all of them, while something fails.

use std::time::{Duration, Instant};

use crate::answers::{Seen, Watch};
use crate::bounds::Bounds;
use crate::clicks::Writer;
use crate::committed::Committed;
use crate::counts;
use crate::scenario::{Scenario, copies_within, running_tasks};
use crate::service::{Service, pause};

/// How long a round may take until everything runs and every copy is there.
const SOON: Duration = Duration::from_secs(120);

pub(crate) struct Fleet {
    pub(crate) scenario: Scenario,
    pub(crate) instances: Vec<Service>,
    pub(crate) watch: Watch,
    writer: Option<Writer>,
    /// Those that run.
    running: Vec<bool>,
    /// When something was last made to fail.
    fault: Instant,
    /// By how many records a copy may be behind that counts as one.
    lag: u64,
}

impl Fleet {
    /// Starts the first `count` instances, and asks once they run.
    pub(crate) fn start(scenario: Scenario, mut instances: Vec<Service>, count: usize, writer: Writer) -> Self {
        instances.iter_mut().take(count).for_each(Service::start);
        instances.iter_mut().take(count).for_each(Service::wait_until_ready);
        let committed = Committed::follow(&scenario.servers, &scenario.application_id);
        let bounds = Bounds::new(writer.sent(), Some(committed));
        Self::watch(scenario, instances, count, writer, bounds)
    }

    /// Begins to ask the first `count` instances, which are ready.
    pub(crate) fn watch(scenario: Scenario, instances: Vec<Service>, count: usize, writer: Writer, bounds: Bounds) -> Self {
        let urls = instances.iter().map(Service::url).collect();
        let watch = Watch::start(urls, scenario.ever(), bounds);
        let running = (0..instances.len()).map(|number| number < count).collect();
        let (writer, fault) = (Some(writer), Instant::now());
        let fleet = Self { scenario, instances, watch, writer, running, fault, lag: 0 };
        fleet.wait_until_at_rest();
        (0..count).for_each(|number| fleet.watch.expect(number, true));
        println!("{}: {count} instances run, and every copy is there", fleet.scenario.application_id);
        fleet
    }

    /// The same, where copies may be behind by so many records.
    pub(crate) fn with_lag(self, lag: u64) -> Self {
        Self { lag, ..self }
    }

    /// What is done to it happens now.
    pub(crate) fn fault(&mut self) {
        self.fault = Instant::now();
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.leave(number);
        self.instances[number].kill();
    }

    pub(crate) fn stop(&mut self, number: usize) {
        self.leave(number);
        self.instances[number].stop();
    }

    fn leave(&mut self, number: usize) {
        self.watch.expect(number, false);
        self.running[number] = false;
        self.fault();
    }

    pub(crate) fn begin(&mut self, number: usize) {
        self.instances[number].start();
        self.running[number] = true;
    }

    /// Lets an instance hang for some time.
    pub(crate) fn suspend(&mut self, number: usize, time: Duration) {
        self.watch.expect(number, false);
        self.fault();
        self.instances[number].signal("STOP");
        pause(time);
        self.instances[number].signal("CONT");
    }

    /// Waits until those that run have all tasks.
    pub(crate) fn wait_until_taken_over(&self) {
        wait("taken over", || self.sum(running_tasks) == self.scenario.task_count(), || self.describe());
    }

    /// Waits until every task runs, every store has a copy that lacks nothing if there are two instances, and all that run are ready.
    pub(crate) fn wait_until_at_rest(&self) {
        let copies = if self.up().count() > 1 { self.scenario.clicks.partitions as usize } else { 0 };
        wait("at rest", || self.is_at_rest(copies), || self.describe());
    }

    fn is_at_rest(&self, copies: usize) -> bool {
        let is_ready = |(_, instance): (usize, &Service)| instance.try_get("/readyz").is_some_and(|answer| answer.status == 200);
        self.sum(running_tasks) == self.scenario.task_count()
            && self.sum(|instance| copies_within(instance, self.lag)) == copies
            && self.up().all(is_ready)
    }

    /// What keeps it from coming to rest.
    fn describe(&self) -> String {
        let of_one = |(number, instance): (usize, &Service)| {
            let ask = |path| instance.try_get(path).map_or(String::new(), |answer| answer.json.to_string());
            let log = instance.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            format!("instance {number}: {}\n{}\n{last}", ask("/readyz"), ask("/v1/cluster"))
        };
        self.up().map(of_one).collect::<Vec<_>>().join("\n")
    }

    fn up(&self) -> impl Iterator<Item = (usize, &Service)> {
        self.instances.iter().enumerate().filter(|(number, _)| self.running[*number])
    }

    fn sum(&self, of: impl Fn(&Service) -> usize) -> usize {
        self.up().map(|(_, instance)| of(instance)).sum()
    }

    /// Lets something fail, waits until all is at rest again, and tells what was seen from the failure on. No answer may have been wrong.
    pub(crate) fn round(&mut self, what: &str, fail: impl FnOnce(&mut Self)) -> Seen {
        self.fault();
        fail(self);
        self.wait_until_at_rest();
        let at_rest = self.fault.elapsed();
        self.up().filter(|(number, _)| !self.watch.is_expected(*number)).for_each(|(number, _)| self.watch.expect(number, true));
        // So that each is asked again.
        pause(Duration::from_millis(300));
        let seen = self.watch.since(self.fault);
        println!("{what}: at rest after {at_rest:.1?}; {seen}");
        self.watch.assert_nothing_was_wrong();
        seen
    }

    /// Writes the rest of the clicks, compares the end with the tally, and stops all.
    pub(crate) fn finish(mut self) {
        self.writer.take().unwrap().finish();
        counts::check(&self.scenario);
        self.watch.assert_nothing_was_wrong();
        drop(self.watch);
        for (instance, _) in self.instances.iter_mut().zip(self.running).filter(|(_, runs)| *runs) {
            instance.wait_until_ready();
            instance.stop();
        }
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool, describe: impl Fn() -> String) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "not {what}: {}", describe());
        pause(Duration::from_millis(20));
    }
}

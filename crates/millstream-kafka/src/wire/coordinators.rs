//! The coordinators of many things, over one connection to each broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::protocol::Request;

use super::address::Address;
use super::connection::{Connection, REQUEST_TIMEOUT};
use super::coordinator::{Cluster, CoordinatorOf, FIRST_PATIENCE, coordinator_of};
use super::stream::Abort;
use crate::ffi::Failure;

/// See the module.
pub(crate) struct Coordinators {
    cluster: Arc<Cluster>,
    abort: Abort,
    /// One to each broker that was asked, whatever it was asked for.
    connections: Vec<Connection>,
    found: BTreeMap<CoordinatorOf, Address>,
}

impl Coordinators {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, abort: Abort::default(), connections: Vec::new(), found: BTreeMap::new() }
    }

    /// Sends a request to the coordinator of something and waits for its answer. After a failure the
    /// coordinator is looked for again; the request may have been received.
    pub(crate) fn call<R: Request>(
        &mut self,
        what: &CoordinatorOf,
        request: &R,
        within: Duration,
    ) -> Result<R::Response, Failure> {
        let coordinator = self.find(what)?;
        let position = match self.connection_to(&coordinator) {
            Ok(position) => position,
            Err(failure) => {
                self.cluster.ask_last(&coordinator);
                self.forget(what);
                return Err(failure);
            }
        };
        let answer = self.connections[position].call(request, within);
        match &answer {
            Ok(_) => self.cluster.answered(),
            Err(_) => {
                self.cluster.ask_last(&coordinator);
                self.connections.swap_remove(position);
                self.forget(what);
            }
        }
        answer
    }

    /// The coordinator is another one now: it is looked for before the next request.
    pub(crate) fn forget(&mut self, what: &CoordinatorOf) {
        self.found.remove(what);
    }

    fn find(&mut self, what: &CoordinatorOf) -> Result<Address, Failure> {
        if let Some(found) = self.found.get(what) {
            return Ok(found.clone());
        }
        let found = match self.ask_a_connected_one(what) {
            Some(found) => found?,
            None => {
                let (found, connection) = self.cluster.find(what, &self.abort, FIRST_PATIENCE)?;
                self.connections.retain(|known| known.address() != connection.address());
                self.connections.push(connection);
                found
            }
        };
        self.found.insert(what.clone(), found.clone());
        Ok(found)
    }

    /// What a broker says that is connected to already; none where none answers.
    fn ask_a_connected_one(&mut self, what: &CoordinatorOf) -> Option<Result<Address, Failure>> {
        while let Some(connection) = self.connections.last_mut() {
            match coordinator_of(connection, what, FIRST_PATIENCE) {
                Ok(answer) => return Some(answer),
                Err(_) => self.connections.pop(),
            };
        }
        None
    }

    fn connection_to(&mut self, address: &Address) -> Result<usize, Failure> {
        if let Some(position) = self.connections.iter().position(|connection| connection.address() == address) {
            return Ok(position);
        }
        let connection = self.cluster.connect(address, &self.abort, REQUEST_TIMEOUT)?;
        self.connections.push(connection);
        Ok(self.connections.len() - 1)
    }
}

//! What is made of committed state between commits, and belongs to none.

use super::open::Phase;
use super::thread::StreamThread;
use crate::broker::Broker;
use crate::task::TaskError;

impl<B: Broker> StreamThread<B> {
    /// Lets one task do a piece of what is made of committed state. Says whether there was any.
    pub(super) fn derive(&mut self) -> Result<bool, TaskError> {
        for (input, slot) in &mut self.slots {
            let Phase::Running(task) = &mut slot.phase else { continue };
            match task.derive() {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(error) => {
                    let input = input.clone();
                    self.recover(Some(&input), error).map_err(|error| TaskError::Stop(error.to_string()))?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

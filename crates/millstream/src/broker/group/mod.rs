//! A consumer group, as its members make it: the broker's coordinator says who is alive and in which generation, and nothing else. Which member holds
//! what is decided by one of them, the leader of the generation.

pub mod assignor;
mod candidate;
mod confirmation;
mod coordinator;
mod directory;
mod leader;
mod member;
mod roll;
mod user_data;

pub use candidate::{Candidate, Placement, transactional_id};
pub use confirmation::Confirmation;
pub use coordinator::{Answer, Coordinator, Gone, JoinRequest, MemberAssignment, MemberMetadata};
pub use directory::{Directory, InstanceInfo};
pub use member::{GroupMember, PartitionCounts};
pub use user_data::Introduction;

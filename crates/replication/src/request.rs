//! What one process asks another.

use serde::{Serialize, de::DeserializeOwned};

/// A request of one process to another, over the `replication` listener: `POST /_myelin/replication/NAME`.
pub trait ReplicationRequest: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name, which stands in the path. Together with the fields it must stay what it is from one version to the next.
    const NAME: &'static str;

    /// Whether a request that was served twice does no more than one that was served once: then it is sent again if no answer
    /// came.
    const MAY_REPEAT: bool;

    /// What is answered.
    type Response: Serialize + DeserializeOwned + Send;
}

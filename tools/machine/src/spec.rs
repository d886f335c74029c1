//! What a process is that is kept running.

use std::path::PathBuf;

use crate::net::Probe;
use crate::state::Addresses;
use crate::system::User;

/// How a process is started, asked and stopped.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub run_as: Option<User>,
    pub addresses: Addresses,
    pub probe: Probe,
    pub hidden: bool,
    /// The name of the container that `program` (docker) runs.
    pub container: Option<String>,
}

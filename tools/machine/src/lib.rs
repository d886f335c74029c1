//! The shop on this machine: its programs built, its servers installed, all of them started, watched and stopped.
//!
//! What `cargo dockside` and the programs that it runs share. No module leads back to itself; a test holds that.
#![expect(
    clippy::disallowed_methods,
    reason = "synchronous: it sleeps on its own threads, and reads what the user's shell set"
)]

pub mod console;
pub mod net;
pub mod process;
pub mod signals;
pub mod url;

pub mod layout;
pub mod state;
pub mod system;

pub mod clocks;
pub mod docker;
pub mod spec;

pub mod supervisor;

pub mod servers;

pub mod debian;
pub mod install;

pub mod commands;
pub mod compile;
pub mod services;
pub mod smoke;

#[cfg(test)]
mod tests {
    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}

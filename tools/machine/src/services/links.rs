//! Links between the services and what they call, for runs with faults: the program `links` of the system
//! tests passes everything on until a command makes it cut, stall or slow one.

use std::path::Path;

use anyhow::Result;

use super::{Options, loopback};
use crate::net::{self, Probe};
use crate::spec::Spec;
use crate::state::Addresses;

pub struct Links<'a> {
    /// `None` where there are none: everybody is called directly.
    program: Option<&'a Path>,
    control: u16,
    args: Vec<String>,
    taken: &'a mut Vec<u16>,
}

impl<'a> Links<'a> {
    pub fn new(program: Option<&'a Path>, taken: &'a mut Vec<u16>) -> Result<Links<'a>> {
        let mut links = Links { program, control: 0, args: Vec::new(), taken };
        if program.is_some() {
            links.control = links.port()?;
        }
        Ok(links)
    }

    fn port(&mut self) -> Result<u16> {
        let port = net::choose(None, self.taken)?;
        self.taken.push(port);
        Ok(port)
    }

    /// The address at which `target` is to be called.
    pub fn to(&mut self, name: &str, target: String) -> Result<String> {
        if self.program.is_none() {
            return Ok(target);
        }
        let listen = loopback(self.port()?);
        self.args.extend(["--link".to_owned(), format!("{name}={listen}={target}")]);
        Ok(listen)
    }

    pub fn spec(self) -> Option<Spec> {
        let control = loopback(self.control);
        let args = ["--control".to_owned(), control.clone()].into_iter().chain(self.args).collect();
        Some(Spec {
            name: "links".into(),
            program: self.program?.to_owned(),
            args,
            env: Vec::new(),
            run_as: None,
            addresses: Addresses { http: Some(control.clone()), ..Addresses::default() },
            probe: Probe::Tcp { addr: control },
            hidden: false,
            container: None,
        })
    }
}

/// A process that dies often should be taken over soon.
pub fn short_times(options: &Options) -> Vec<(&'static str, String)> {
    let times = [("CLAIM_LEASE_SECONDS", 4), ("SAGA_LEASE_SECONDS", 3), ("PROVIDER_CALL_SECONDS", 2)];
    let short = times.into_iter().filter(|_| options.hasty);
    short.map(|(name, seconds)| (name, seconds.to_string())).collect()
}

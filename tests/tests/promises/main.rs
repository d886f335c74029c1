//! The promises of `docs/reliability.md`, each tried under its faults.

mod p1;

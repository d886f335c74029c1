//! The tests of the user service from outside, in one program, as each more is linked by itself. What needs the machine, or counts what its process
//! does, is apart.

mod addresses;
mod admin;
mod administration;
mod app;
mod audit;
mod devices;
mod events;
mod grpc;
mod http;
mod mail;
mod mail_over_tls;
mod openapi;
mod password_resets;
mod self_service;
mod sessions;
mod starting;
mod tokens;
mod verification;

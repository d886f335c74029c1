//! Migrations become part of the program, and a new one is no change of its sources: see `sqlx::migrate!`.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}

//! Every state that a crash, a lost answer, a late answer or call, a provider's whim or a
//! change of mind can lead to.

mod kept;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use self::kept::Map;
use self::world::World;
use super::*;

thread_local! {
    static TAKEN: RefCell<BTreeSet<(&'static str, u32)>> = const { RefCell::new(BTreeSet::new()) };
}

/// What `branch!` calls.
pub fn taken(file: &'static str, line: u32) {
    TAKEN.with_borrow_mut(|taken| taken.insert((file, line)));
}

/// The branches of the rule that this thread has not taken: file, line, and the line before it.
fn not_taken() -> Vec<String> {
    let mut missing = Vec::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let parts = std::fs::read_dir(source.join("saga")).unwrap().map(|entry| entry.unwrap().path());
    for path in parts.filter(|path| path.is_file()).chain([source.join("saga.rs")]) {
        let (file, text) = (path.strip_prefix(&source).unwrap(), std::fs::read_to_string(&path).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.trim() == "branch!();") {
            let number = at + 1;
            let reached = |taken: &BTreeSet<(&str, u32)>| {
                taken.iter().any(|(path, line)| Path::new(path).ends_with(file) && *line as usize == number)
            };
            if !TAKEN.with_borrow(reached) {
                missing.push(format!("{}:{number}: {}", file.display(), lines[at - 1].trim()));
            }
        }
    }
    missing
}

#[test]
fn no_reachable_state_breaks_a_promise_and_none_is_stuck() {
    let mut worlds = vec![World::start(TOTAL), World::start(eur(0))];
    // Free orders as a release leaves them that knows of none: it goes on to capture, or to cancel the intent.
    for (phase, pending_cancel) in [
        (Phase::Capturing, None),
        (Phase::Capturing, Some(CancelReason::Customer)),
        (Phase::Voiding, Some(CancelReason::PaymentTimeout)),
    ] {
        let mut world = World::start(eur(0));
        let order = (*world.order).clone();
        world.order = State { phase, pending_cancel, payment: PaymentStatus::Unknown, ..order }.into();
        worlds.push(world);
    }
    let mut number: Map<World, usize> = worlds.iter().copied().zip(0..).collect();
    let mut earlier: Vec<Vec<usize>> = vec![vec![]; worlds.len()];
    let mut at = 0;
    while at < worlds.len() {
        worlds[at].check();
        for next in worlds[at].successors() {
            let to = *number.entry(next).or_insert_with_key(|next| {
                worlds.push(*next);
                earlier.push(vec![]);
                worlds.len() - 1
            });
            earlier[to].push(at);
        }
        at += 1;
    }
    assert!(worlds.len() > 10_000, "only {} states: the walk has gone lame", worlds.len());

    // From every state some way leads to rest.
    let mut can_rest: Vec<bool> = worlds.iter().map(World::rests).collect();
    let mut queue: VecDeque<usize> = (0..worlds.len()).filter(|at| can_rest[*at]).collect();
    while let Some(at) = queue.pop_front() {
        for before in &earlier[at] {
            if !std::mem::replace(&mut can_rest[*before], true) {
                queue.push_back(*before);
            }
        }
    }
    let stuck = can_rest.iter().position(|can_rest| !can_rest).map(|at| &worlds[at]);
    assert!(stuck.is_none(), "stuck: {stuck:?}");

    let (missing, branches) = (not_taken(), TAKEN.with_borrow(BTreeSet::len));
    println!("{} states, {branches} branches of the rule", worlds.len());
    assert!(branches > 40, "only {branches} branches are marked");
    assert!(missing.is_empty(), "branches of the rule that no path takes:\n{}", missing.join("\n"));
}

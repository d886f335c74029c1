//! Values that are kept once, so that worlds are cheap to copy, to hash and to compare.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Deref;
use std::thread::LocalKey;

use super::super::apply;
use super::world::Made;
use crate::saga::refunds::Refund;
use crate::saga::{Effect, Input, State};

pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;
type Set<T> = RefCell<HashSet<&'static T, BuildHasherDefault<Quick>>>;

/// One of the values that this thread keeps until the tests end: equal ones are the same.
pub struct Kept<T: 'static>(&'static T);

/// What is kept has a set to be kept in.
pub trait Keep: Eq + Hash + 'static {
    fn set() -> &'static LocalKey<Set<Self>>;
}

macro_rules! keep {
    ($($kind:ty),+) => {$(
        impl Keep for $kind {
            fn set() -> &'static LocalKey<Set<Self>> {
                thread_local! {
                    static SET: Set<$kind> = RefCell::default();
                }
                &SET
            }
        }
    )+};
}

keep!(State, Input, Refund, Vec<Made>);

impl<T: Keep> From<T> for Kept<T> {
    fn from(value: T) -> Self {
        T::set().with_borrow_mut(|set| match set.get(&value) {
            Some(known) => Self(known),
            None => {
                let new: &'static T = Box::leak(Box::new(value));
                set.insert(new);
                Self(new)
            }
        })
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Kept<T> {}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl<T> Eq for Kept<T> {}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        std::ptr::from_ref(self.0).hash(hasher);
    }
}

impl<T: fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A state after an input, and its effects; `None` for a refusal.
type Ruled = Option<(Kept<State>, &'static [Effect])>;
type Answers = RefCell<Map<(Kept<State>, Kept<Input>), Ruled>>;

/// What the rule says. It is a pure function: many worlds with the same order share one call.
pub fn rule(order: Kept<State>, input: Kept<Input>) -> Ruled {
    thread_local! {
        static RULED: Answers = RefCell::default();
    }
    if let Some(known) = RULED.with_borrow(|ruled| ruled.get(&(order, input)).copied()) {
        return known;
    }
    let new = apply(&order, (*input).clone()).ok();
    let new = new.map(|(state, effects)| (state.into(), &*effects.leak()));
    RULED.with_borrow_mut(|ruled| ruled.insert((order, input), new));
    new
}

/// A hash for values that no stranger sends, in the manner of the one in the Rust compiler (rustc-hash).
#[derive(Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = self.0.wrapping_add(n).wrapping_mul(0xf135_7aea_2e62_a9c5);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

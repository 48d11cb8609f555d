//! Small sets of an enumeration's members, one bit each.

use std::fmt;
use std::marker::PhantomData;

/// An enumeration of at most 32 members that a [`Set`] can hold. Made by `members!`.
pub trait Member: Copy + fmt::Debug + 'static {
    const ALL: &'static [Self];

    /// The place among [`Member::ALL`].
    fn index(self) -> u32;
}

/// A set of members.
pub struct Set<T> {
    bits: u32,
    of: PhantomData<T>,
}

impl<T: Member> Set<T> {
    pub const EMPTY: Set<T> = Set { bits: 0, of: PhantomData };

    pub fn contains(self, member: T) -> bool {
        self.bits & (1 << member.index()) != 0
    }

    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    pub fn insert(&mut self, member: T) {
        self.bits |= 1 << member.index();
    }

    pub fn remove(&mut self, member: T) {
        self.bits &= !(1 << member.index());
    }

    /// What is in one of the two.
    #[must_use]
    pub fn union(self, other: Set<T>) -> Set<T> {
        Set { bits: self.bits | other.bits, of: PhantomData }
    }

    pub fn iter(self) -> impl Iterator<Item = T> {
        T::ALL.iter().copied().filter(move |member| self.contains(*member))
    }
}

impl<T: Member> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Set<T> {
        let mut set = Set::EMPTY;
        members.into_iter().for_each(|member| set.insert(member));
        set
    }
}

// Derives would ask for the same of `T`.
impl<T> Clone for Set<T> {
    fn clone(&self) -> Set<T> {
        *self
    }
}

impl<T> Copy for Set<T> {}

impl<T> PartialEq for Set<T> {
    fn eq(&self, other: &Set<T>) -> bool {
        self.bits == other.bits
    }
}

impl<T> Eq for Set<T> {}

impl<T: Member> fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Declares an enumeration and lists its members for [`Set`].
macro_rules! members {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $member:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $member,)* }

        impl $crate::set::Member for $name {
            const ALL: &'static [$name] = &[$($name::$member,)*];

            fn index(self) -> u32 {
                self as u32
            }
        }
    };
}

pub(crate) use members;

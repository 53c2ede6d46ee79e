//! The hash by which names are looked up.

/// A keyed hash of a name: two polynomials over the bytes, modulo the Mersenne prime 2^31 - 1, with secret
/// multipliers. For any two names the chance over the keys that they collide is below (255 / 2^31)^2, about
/// 2^-46, and nobody who does not know the keys can look for a collision without asking us. (Carter and
/// Wegman, "New hash functions and their use in authentication and set equality", 1981.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameHash {
    first: u64,
    second: u64,
}

pub(super) const PRIME: u64 = (1 << 31) - 1;

impl NameHash {
    /// The hash of nothing.
    pub const EMPTY: Self = Self { first: 0, second: 0 };

    /// Adds the next byte to the left.
    #[inline(always)]
    pub fn push(&mut self, byte: u8, key: &[u32; 2]) {
        self.first = multiply_add(self.first, key[0], byte);
        self.second = multiply_add(self.second, key[1], byte);
    }

    /// The hash so far; never 0, which means "no name" in the maps.
    #[inline(always)]
    pub fn value(&self) -> u64 {
        1 << 63 | self.first << 32 | self.second
    }
}

/// The multiplier that a random number gives: between 2^16 and the prime, so that neither it nor its square
/// is small.
pub fn hash_key(random: u32) -> u32 {
    (1 << 16) + random % ((PRIME as u32) - (1 << 16))
}

/// Hash of a whole name in wire form, lower case, without the root label.
pub fn hash(wire: &[u8], key: &[u32; 2]) -> u64 {
    let mut hash = NameHash::EMPTY;
    for byte in wire.iter().rev() {
        hash.push(*byte, key);
    }
    hash.value()
}

#[inline(always)]
fn multiply_add(hash: u64, key: u32, byte: u8) -> u64 {
    // Below 2^31 * 2^31: no overflow. Two folds bring it to at most the prime, which is 0 modulo itself.
    let product = hash * key as u64 + byte as u64 + 1;
    let folded = (product & PRIME) + (product >> 31);
    let folded = (folded & PRIME) + (folded >> 31);
    if folded == PRIME { 0 } else { folded }
}

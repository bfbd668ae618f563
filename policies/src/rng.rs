//! One named, versioned generator for everything that draws: the same seed gives the same draws on every platform and in every
//! release that keeps [`Rng::NAME`]. It never touches the operating system's entropy; a driver that wants a fresh seed brings one.

use rand::SeedableRng;
use rand::rand_core::Rng as _;
use rand_xoshiro::Xoshiro256PlusPlus;

/// The generator: xoshiro256++ seeded through SplitMix64 (Blackman and Vigna, ACM TOMS 47(4), 2021).
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// Name and version of the algorithm together with the derivations below; goes into the record of a run beside the seed.
    pub const NAME: &'static str = "xoshiro256++/1";

    /// The generator of a seed.
    pub fn new(seed: u64) -> Rng {
        Rng(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// An independent stream of the same seed, told apart by a label, so that one part's draws do not shift another's.
    pub fn stream(seed: u64, label: &str) -> Rng {
        // FNV-1a: short labels, no table, stable for ever.
        let hash =
            label.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Rng::new(seed ^ hash)
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform integer in `0..n`, without bias (Lemire, ACM TOMACS 29(1), 2019).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "nothing to draw from");
        let n = n as u64;
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// A uniform number in `[0, 1)` with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The same generator for the distributions of the `rand` crates.
    pub fn as_rand(&mut self) -> &mut Xoshiro256PlusPlus {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_draws_it_always_gave() {
        let mut rng = Rng::new(7);
        let draws: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(draws, [1_021_219_803_524_665_661, 3_174_977_118_032_272_916, 13_236_943_193_235_544_178]);
        assert_ne!(Rng::stream(7, "scheme").next_u64(), Rng::stream(7, "arrivals").next_u64());
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }
}

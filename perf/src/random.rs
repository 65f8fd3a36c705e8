//! Counter-based random numbers: a value depends only on its key, so any row can be drawn alone and in any order.

/// Weyl constant of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Finalizer of splitmix64: a bijection whose output bits all depend on all input bits.
pub fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The `counter`-th draw of the stream `stream` under `seed`.
pub fn draw(seed: u64, stream: u64, counter: u64) -> u64 {
    let key = mix(seed ^ mix(stream.wrapping_add(GOLDEN_GAMMA)));
    mix(key.wrapping_add(counter.wrapping_mul(GOLDEN_GAMMA)))
}

/// Uniform in [0, 1) from the upper 53 bits of a draw.
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Uniform in 0..bound, by the high word of the product; `bound` is far below 2^32 here, so the bias is below 2^-32.
pub fn below(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// Two independent N(0,1) values from two draws (Box and Muller, 1958).
pub fn normal_pair(first: u64, second: u64) -> (f64, f64) {
    // 1 - u is in (0, 1]: the logarithm stays finite.
    let radius = (-2.0 * (1.0 - unit(first)).ln()).sqrt();
    let (sin, cos) = (unit(second) * std::f64::consts::TAU).sin_cos();
    (radius * cos, radius * sin)
}

/// A sequence of draws, for the places that want a generator rather than a function of a position.
#[derive(Clone, Debug)]
pub struct Sequence {
    seed: u64,
    counter: u64,
}

impl Sequence {
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        draw(self.seed, 0, self.counter)
    }

    /// Uniform in 0..bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        below(self.next_u64(), bound)
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        unit(self.next_u64()) < probability
    }

    /// One element of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_mean_zero_and_variance_one() {
        let count = 100_000u64;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..count {
            let (a, b) = normal_pair(draw(7, 1, 2 * i), draw(7, 1, 2 * i + 1));
            assert!(a.is_finite() && b.is_finite());
            sum += a + b;
            squares += a * a + b * b;
        }
        let n = 2.0 * count as f64;
        assert!((sum / n).abs() < 0.01, "mean {}", sum / n);
        assert!((squares / n - 1.0).abs() < 0.02, "variance {}", squares / n);
    }

    #[test]
    fn the_extreme_draws_stay_in_range() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u64::MAX) < 1.0);
        assert_eq!(below(u64::MAX, 100), 99);
        assert_eq!(below(0, 100), 0);
        let (a, b) = normal_pair(u64::MAX, u64::MAX);
        assert!(a.is_finite() && b.is_finite());
    }
}

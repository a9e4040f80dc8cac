#pragma once
/// Reproducible test data: SplitMix64, the same numbers on every machine and compiler.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

namespace espalier::support {

class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t bits() {
        std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    /// 0 … bound-1.
    std::size_t below(std::size_t bound) { return static_cast<std::size_t>(bits() % bound); }
    double uniform(double low, double high) { return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53; }
    double normal() {
        const double radius = std::sqrt(-2 * std::log(uniform(0x1p-60, 1)));
        return radius * std::cos(2 * std::numbers::pi * uniform(0, 1));
    }
    std::vector<float> normals(std::size_t count, double scale = 1) {
        std::vector<float> values(count);
        for (float& value : values) value = static_cast<float>(scale * normal());
        return values;
    }

  private:
    std::uint64_t state_;
};

}  // namespace espalier::support

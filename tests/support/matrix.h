#pragma once
/// Row-major matrices on the host and float64 arithmetic on them, for references that are written down once.

#include "tests/support/random.h"

#include <cmath>
#include <cstddef>
#include <vector>

namespace espalier::support {

struct Matrix {
    std::size_t rows = 0, columns = 0;
    std::vector<float> values;

    static Matrix random(Random& random, std::size_t rows, std::size_t columns, double scale = 1) {
        return {rows, columns, random.normals(rows * columns, scale)};
    }
    double operator()(std::size_t row, std::size_t column) const {
        return static_cast<double>(values[row * columns + column]);
    }
};

/// A float64 result with the first-order bound of what float32 arithmetic may make of it.
struct Bounded {
    std::vector<double> values, bounds;
    explicit Bounded(std::size_t size) : values(size), bounds(size) {}
};

}  // namespace espalier::support

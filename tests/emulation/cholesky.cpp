#include "tests/emulation/cholesky.h"

#include <cmath>
#include <vector>

namespace espalier::emulation {

int factor_lower(double* a, std::size_t n, std::size_t leading) {
    for (std::size_t j = 0; j < n; ++j) {
        double* const column = a + j * leading;
        if (!(column[j] > 0)) return static_cast<int>(j) + 1;
        const double diagonal = std::sqrt(column[j]);
        column[j] = diagonal;
        for (std::size_t i = j + 1; i < n; ++i) column[i] /= diagonal;
        for (std::size_t k = j + 1; k < n; ++k) {
            const double factor = column[k];
            double* const later = a + k * leading;
            for (std::size_t i = k; i < n; ++i) later[i] -= factor * column[i];
        }
    }
    return 0;
}

int invert_from_lower(double* a, std::size_t n, std::size_t leading) {
    std::vector<double> inverse(n * n);  // L^-1, lower, column j at j * n
    for (std::size_t j = 0; j < n; ++j) {
        double* const x = inverse.data() + j * n;
        x[j] = 1;
        for (std::size_t k = j; k < n; ++k) {  // forward substitution of the j-th unit vector
            const double* const column = a + k * leading;
            if (column[k] == 0) return static_cast<int>(k) + 1;
            x[k] /= column[k];
            for (std::size_t i = k + 1; i < n; ++i) x[i] -= x[k] * column[i];
        }
    }
    for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t i = j; i < n; ++i) {
            double sum = 0;
            for (std::size_t k = i; k < n; ++k) sum += inverse[i * n + k] * inverse[j * n + k];
            a[j * leading + i] = sum;
        }
    }
    return 0;
}

}  // namespace espalier::emulation

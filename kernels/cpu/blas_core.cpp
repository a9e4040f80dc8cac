#include "kernels/cpu/blas_core.h"

#include <cblas.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace espalier {

std::string better_blas_core() {
#if defined(__x86_64__)
    constexpr std::array<std::string_view, 6> before_avx = {"Prescott",   "Core2",   "Penryn",
                                                            "Dunnington", "Nehalem", "Atom"};
    if (std::find(before_avx.begin(), before_avx.end(), openblas_get_corename()) == before_avx.end()) return {};
    __builtin_cpu_init();
    const bool has_avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                            __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
    if (has_avx512) return "SkylakeX";
    if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) return "Haswell";
#endif
    return {};
}

}  // namespace espalier

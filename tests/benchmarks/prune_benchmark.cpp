// Runs `espalier prune` inside this process, then measures SGEMM on the shapes of that run's own matrix products with
// all threads of OpenBLAS, and prints the share of that ceiling which the whole run reached, and where its time went.
//   prune_benchmark prune options …
#include "io/file.h"
#include "io/token_file.h"
#include "kernels/cpu/blas.h"
#include "src/base/clock.h"
#include "src/base/error.h"
#include "src/base/json.h"
#include "src/cli/commands.h"
#include "src/weights/model_source.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace espalier {

using cpu::to_blas;

namespace {

/// Rate of one product shape in FLOP/s: the median of five windows of 60 ms.
double sgemm_rate(CBLAS_TRANSPOSE a_form, CBLAS_TRANSPOSE b_form, std::size_t m, std::size_t n, std::size_t k) {
    const std::vector<float> a(m * k, 0.5F), b(k * n, 0.5F);
    std::vector<float> c(m * n);
    const auto once = [&] {
        cblas_sgemm(CblasRowMajor, a_form, b_form, to_blas(m), to_blas(n), to_blas(k), 1.0F, a.data(),
                    to_blas(a_form == CblasNoTrans ? k : m), b.data(), to_blas(b_form == CblasNoTrans ? n : k), 0.0F,
                    c.data(), to_blas(n));
    };
    once();
    std::array<double, 5> rates{};
    for (double& rate : rates) rate = 1 / seconds_of(once, 0.06);
    std::sort(rates.begin(), rates.end());
    return 2.0 * static_cast<double>(m * n * k) * rates[rates.size() / 2];
}

/// Forward, input-gradient and weight-gradient products of all seven matrices, weighted by their FLOP.
double ceiling(const BlockLayout& layout, std::size_t tokens) {
    double flops = 0, seconds = 0;
    for (const MatrixShape& matrix : layout.matrices()) {
        const double work = 2.0 * static_cast<double>(tokens * matrix.size());
        for (const double rate : {sgemm_rate(CblasNoTrans, CblasTrans, tokens, matrix.rows, matrix.columns),
                                  sgemm_rate(CblasNoTrans, CblasNoTrans, tokens, matrix.columns, matrix.rows),
                                  sgemm_rate(CblasTrans, CblasNoTrans, matrix.rows, matrix.columns, tokens)}) {
            flops += work;
            seconds += work / rate;
        }
    }
    return flops / seconds;
}

std::string value_of(const std::vector<std::string>& words, const std::string& option) {
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
        if (words[i] == option) return words[i + 1];
    }
    throw InputError("prune_benchmark needs " + option);
}

/// With all threads of OpenBLAS itself.
double threaded_ceiling(const BlockLayout& layout, std::size_t tokens, int threads) {
    openblas_set_num_threads(threads);
    const double rate = ceiling(layout, tokens);
    openblas_set_num_threads(1);
    return rate;
}

int run(const std::vector<std::string>& words) {
    Session session;
    const int threads = omp_get_max_threads();
    const auto source = open_model(value_of(words, "--model"));
    const TokenTable calibration =
        read_token_file(value_of(words, "--calibration"), source->config().vocabulary, TokenPurpose::calibration);
    // Before and after: other users of the machine come and go.
    const double before = threaded_ceiling(source->layout(), calibration.columns, threads);
    prune_command(session, {words, "prune_benchmark"});
    const double after = threaded_ceiling(source->layout(), calibration.columns, threads), best = (before + after) / 2;

    const Json metrics = Json::parse(read_text(value_of(words, "--output") + "/metrics.json", std::uint64_t{1} << 30));
    std::map<std::string, double> phases;
    double flops = 0, seconds = 0;
    for (const Json& block : metrics.at("blocks")) {
        if (!block.at("pruned").get<bool>()) continue;
        flops += block.at("flops").get<double>();
        for (const auto& [phase, time] : block.at("seconds").items()) {
            phases[phase] += time.get<double>();
            seconds += time.get<double>();
        }
    }
    std::printf("\nSGEMM on the run's own shapes  %7.1f GFLOP/s before, %.1f after, on %d thread(s)\n", before / 1e9,
                after / 1e9, threads);
    std::printf("the run                        %7.1f GFLOP/s, %.1f %% of their mean (%.2f TFLOP in %.1f s)\n",
                flops / seconds / 1e9, 100 * flops / seconds / best, flops / 1e12, seconds);
    for (const auto& [phase, time] : phases) std::printf("  %-22s %6.1f %%\n", phase.c_str(), 100 * time / seconds);
    return 0;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
    try {
        return espalier::run({argv + 1, argv + argc});
    } catch (const std::exception& error) {
        std::fprintf(stderr, "prune_benchmark: %s\n", error.what());
        return 2;
    }
}

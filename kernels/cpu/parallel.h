#pragma once
/// Loops over OpenMP threads for the CPU kernels. Work is cut by shape alone, so results do not depend on the thread
/// count. Inside another parallel loop (a gradient panel's consumer) they run on the calling thread.

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <vector>

namespace espalier::cpu {

/// Elements of an element-wise operation that one thread takes at a time; smaller operations stay on one thread.
inline constexpr std::size_t elements_per_chunk = 16384;

inline std::size_t chunks_of(std::size_t count, std::size_t chunk) {
    return (count + chunk - 1) / chunk;
}

/// While it lives, OpenMP offers the calling thread one thread. OpenBLAS built over OpenMP takes its own number from
/// that and would otherwise split a call outside of a parallel loop by it.
class OneThread {
  public:
    OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
    OneThread(const OneThread&) = delete;
    OneThread& operator=(const OneThread&) = delete;
    ~OneThread() { omp_set_num_threads(before_); }

  private:
    int before_;
};

/// Multiplications below which waking other threads costs more than it saves (about 50 microseconds of one core).
inline constexpr double worthwhile_operations = 2e6;

/// body(index) for every index below `count`; exceptions of the body are rethrown on the calling thread. `operations`
/// is the work of all of them together; small work stays on the calling thread.
template <typename Body>
void parallel_for(std::size_t count, const Body& body, double operations = worthwhile_operations) {
    if (count <= 1 || operations < worthwhile_operations || omp_in_parallel() != 0) {
        const OneThread alone;
        for (std::size_t i = 0; i < count; ++i) body(i);
        return;
    }
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic)
    for (std::size_t i = 0; i < count; ++i) {
        try {
            body(i);
        } catch (...) {
#pragma omp critical(espalier_parallel_for_failure)
            failure = std::current_exception();
        }
    }
    if (failure) std::rethrow_exception(failure);
}

/// body(begin, end) over runs of at most `chunk` elements.
template <typename Body>
void parallel_chunks(std::size_t count, std::size_t chunk, const Body& body,
                     double operations = worthwhile_operations) {
    parallel_for(
        chunks_of(count, chunk), [&](std::size_t i) { body(i * chunk, std::min(count, (i + 1) * chunk)); }, operations);
}

/// Sum of body(begin, end) over the same runs, added in order.
template <typename Value, typename Body>
Value parallel_sum(std::size_t count, std::size_t chunk, const Body& body) {
    std::vector<Value> parts(chunks_of(count, chunk));
    parallel_chunks(count, chunk, [&](std::size_t begin, std::size_t end) { parts[begin / chunk] = body(begin, end); });
    Value total{};
    for (const Value part : parts) total += part;
    return total;
}

/// sums[column] = the sum over rows of terms_of(row, first)(column - first), where terms_of is asked once for a row and
/// a chunk of columns beginning at `first`. Columns are cut over threads; rows are added in runs of 32 so that float32
/// errors do not grow with the number of rows.
template <typename TermsOf>
void column_sums(std::size_t rows, std::size_t columns, float* sums, const TermsOf& terms_of) {
    constexpr std::size_t columns_per_chunk = 256, rows_per_run = 32;
    parallel_chunks(columns, columns_per_chunk, [&](std::size_t begin, std::size_t end) {
        float total[columns_per_chunk] = {}, run[columns_per_chunk];
        const std::size_t width = end - begin;
        for (std::size_t first = 0; first < rows; first += rows_per_run) {
            std::fill_n(run, width, 0.0F);
            for (std::size_t row = first; row < std::min(rows, first + rows_per_run); ++row) {
                const auto term = terms_of(row, begin);
#pragma omp simd
                for (std::size_t j = 0; j < width; ++j) run[j] += term(j);
            }
#pragma omp simd
            for (std::size_t j = 0; j < width; ++j) total[j] += run[j];
        }
        std::copy_n(total, width, sums + begin);
    });
}

/// Rows of a [rows, columns] tensor that make about one chunk.
inline std::size_t rows_per_chunk(std::size_t columns) {
    return std::max<std::size_t>(1, elements_per_chunk / std::max<std::size_t>(1, columns));
}

/// A buffer of the calling thread that lives as long as the thread and only grows: scratch of one kernel call.
/// `Purpose` tells simultaneous buffers apart.
template <typename Purpose>
float* thread_scratch(std::size_t floats) {
    thread_local std::vector<float> buffer;
    if (buffer.size() < floats) buffer.resize(floats);
    return buffer.data();
}

}  // namespace espalier::cpu

#include "src/blocks/group_context.h"

#include <algorithm>
#include <iterator>

namespace espalier {

std::vector<std::size_t> GroupContext::mine_of(const std::vector<std::size_t>& samples) const {
    std::vector<std::size_t> mine;
    std::copy_if(samples.begin(), samples.end(), std::back_inserter(mine),
                 [held = my_samples()](std::size_t sample) { return held.contains(sample); });
    return mine;
}

std::vector<std::size_t> sample_offsets(const GroupContext& context, const std::vector<std::size_t>& samples,
                                        std::size_t width) {
    std::vector<std::size_t> offsets(context.ranks() + 1, 0);
    for (std::size_t r = 0; r < context.ranks(); ++r) {
        const IndexRange held = context.topology.samples_of(context.block_group, r);
        const auto count =
            std::count_if(samples.begin(), samples.end(), [&](std::size_t n) { return held.contains(n); });
        offsets[r + 1] = offsets[r] + static_cast<std::size_t>(count) * width;
    }
    return offsets;
}

double sum_in_sample_order(const GroupContext& context, const std::vector<std::size_t>& samples,
                           const std::vector<double>& values) {
    const std::vector<std::size_t> offsets = sample_offsets(context, samples, 1);
    std::vector<double> all(samples.size());
    std::copy(values.begin(), values.end(), all.begin() + static_cast<std::ptrdiff_t>(offsets[context.me()]));
    context.control.all_gather(std::span<double>(all), offsets);
    double sum = 0;
    for (const double value : all) sum += value;
    return sum;
}

}  // namespace espalier

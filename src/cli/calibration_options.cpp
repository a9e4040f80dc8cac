#include "src/cli/calibration_options.h"

#include "io/drawn_tokens.h"
#include "src/base/error.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {

CalibrationTokens choose_calibration(OptionSet& options, const TokenTable& table, const std::string& file,
                                     std::size_t usual_samples) {
    TokenTable rows = table;
    const bool drawn = names_drawn_tokens(file);  // as many as are used
    if (!options.has("sequence-length")) {
        const std::size_t longest = drawn ? table.columns : longest_by_default;
        options.set_effective("sequence-length", std::to_string(std::min(longest, table.columns)), "calibration file");
    }
    CalibrationTokens calibration;
    calibration.sequence_length = options.whole("sequence-length", 1);
    if (table.rows == 1 && table.columns > calibration.sequence_length) {
        // A one-dimensional file: cut into consecutive samples.
        rows.rows = table.columns / calibration.sequence_length;
        rows.columns = calibration.sequence_length;
    }
    if (calibration.sequence_length > rows.columns) {
        throw InputError(fmt::format("--sequence-length {} exceeds the {} tokens of a sample in {}",
                                     calibration.sequence_length, rows.columns, file));
    }
    if (!options.has("samples")) {
        const std::size_t most = drawn ? rows.rows : usual_samples;
        options.set_effective("samples", std::to_string(std::min(most, rows.rows)), "calibration file");
    }
    calibration.samples = options.whole("samples", 1);
    if (calibration.samples > rows.rows) {
        throw InputError(
            fmt::format("--samples {} exceeds the {} samples in {}", calibration.samples, rows.rows, file));
    }
    for (std::size_t n = 0; n < calibration.samples; ++n) {
        const auto row = table.ids.begin() + static_cast<std::ptrdiff_t>(n * rows.columns);
        calibration.ids.insert(calibration.ids.end(), row,
                               row + static_cast<std::ptrdiff_t>(calibration.sequence_length));
    }
    return calibration;
}

}  // namespace espalier

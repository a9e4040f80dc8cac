#pragma once
/// Likelihoods on one device, without other ranks.

#include "src/evaluate/likelihoods.h"

#include <string>
#include <vector>

namespace espalier::support {

inline std::vector<Likelihood> measure_alone(Device& device, const ModelSource& source,
                                             std::span<const PackedSequences> passes,
                                             StoragePlace place = StoragePlace::device) {
    const auto alone = make_single_communicator();
    const SayProgress quiet = [](const std::string&) {};
    return measure_likelihoods({device, *alone, *alone, source, place, quiet}, passes);
}

}  // namespace espalier::support

#pragma once
/// The types that a run computes in, which decide what it allocates.

#include "src/method/prune_options.h"
#include "src/model/decoder_block.h"

namespace espalier {

struct PassTypes {
    DType weights;  ///< of the run's block on the device; holds what is written exactly
    DType widest;   ///< of the weights of any pass
    Passes passes;
};

inline PassTypes pass_types(const PruneOptions& options, const Device& device, DType stored) {
    PassTypes types{};
    types.weights = stored == options.output_dtype ? device.compute_dtype(stored) : DType::f32;
    const DType of_passes = options.ro.type_of_passes(device, types.weights);
    const bool optimises = options.method.optimises();
    types.widest = optimises && of_passes == DType::f32 ? DType::f32 : types.weights;
    types.passes =
        optimises || options.method.uses_regional_gradient() ? Passes::forward_and_backward : Passes::forward_only;
    return types;
}

}  // namespace espalier

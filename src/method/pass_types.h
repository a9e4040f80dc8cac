#pragma once
/// The types that a run computes in, which decide what it allocates.

#include "src/method/prune_options.h"
#include "src/model/decoder_block.h"

namespace espalier {

struct PassTypes {
    DType weights;            ///< of the run's block on the device; holds what is written exactly
    DType widest;             ///< of the weights of any pass
    bool sixteen_bit_passes;  ///< of regional optimisation
    Passes passes;
};

inline PassTypes pass_types(const PruneOptions& options, const Device& device, DType stored) {
    PassTypes types{};
    types.weights = stored == options.output_dtype ? device.compute_dtype(stored) : DType::f32;
    const DType of_passes = options.ro.type_of_passes(device, types.weights);
    types.sixteen_bit_passes = of_passes != DType::f32;
    const bool optimises = uses_regional_optimization(options.method);
    types.widest = optimises && of_passes == DType::f32 ? DType::f32 : types.weights;
    types.passes =
        optimises || uses_regional_gradient(options.method) ? Passes::forward_and_backward : Passes::forward_only;
    return types;
}

}  // namespace espalier

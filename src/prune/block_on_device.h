#pragma once
/// What a rank computes blocks with: the same for all blocks of a run, and of a run and its rehearsal.

#include "src/method/pass_types.h"
#include "src/model/block_weights.h"
#include "src/model/decoder_block.h"
#include "src/weights/block_source.h"

namespace espalier {

struct BlockOnDevice {
    /// `stored`: as the model's blocks are read. Device, configuration and layout outlive it.
    BlockOnDevice(Device& device, const ModelConfig& config, const BlockLayout& layout, const PruneOptions& options,
                  const BlockStorage& stored)
        : types(pass_types(options, device, stored.matrix_dtype)),
          weights(device, layout, types.weights),
          decoder(device, config,
                  PassShape{options.sequence_length, options.sequence_length * options.samples_of_pass(), types.passes,
                            types.widest}) {}

    PassTypes types;
    BlockWeights weights;  ///< of the present block
    DecoderBlock decoder;
};

}  // namespace espalier

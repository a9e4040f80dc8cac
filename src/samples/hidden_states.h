#pragma once
/// float32 hidden states [T, hidden] of the calibration samples that one rank holds.

#include "src/samples/sample_store.h"

namespace espalier {

class HiddenStates : public SampleStore {
  public:
    HiddenStates(Device& device, IndexRange samples, std::size_t tokens, std::size_t hidden,
                 StoragePlace place = StoragePlace::device, const char* name = "hidden states")
        : SampleStore(device, samples, tokens, hidden, DType::f32, place, name) {}
};

}  // namespace espalier

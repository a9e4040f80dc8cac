// The input is the manifest.json of a run of fine-tuning. What is accepted is the same after being written and read.
#include "src/weights/finetune_manifest.h"

#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace espalier;
    only_input_errors([&] {
        const FinetuneManifest manifest =
            FinetuneManifest::from_json(parse_strict_json(as_text(data, size), "manifest.json"), "manifest.json");
        demand_same_after_writing(manifest);
        demand(manifest.progress.looks_since_best() <= manifest.progress.looks.size(), "looks that there are");
    });
    return 0;
}

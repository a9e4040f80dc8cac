// The input is the manifest.json of a run of fine-tuning. What is accepted is the same after being written and read.
#include "src/weights/finetune_manifest.h"

#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace espalier;
    only_input_errors([&] {
        const FinetuneManifest manifest =
            FinetuneManifest::from_json(parse_strict_json(as_text(data, size), "manifest.json"), "manifest.json");
        const Json written = manifest.to_json();
        const FinetuneManifest again = FinetuneManifest::from_json(parse_strict_json(written.dump(), "again"), "again");
        demand(again.to_json() == written, "the same manifest after writing and reading");
        demand(manifest.progress.looks_since_best() <= manifest.progress.looks.size(), "looks that there are");
    });
    return 0;
}

// The input is manifest.json. What is accepted is the same after being written and read again.
#include "src/weights/manifest.h"

#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace espalier;
    only_input_errors([&] {
        const Manifest manifest =
            Manifest::from_json(parse_strict_json(as_text(data, size), "manifest.json"), "manifest.json");
        demand_same_after_writing(manifest);
    });
    return 0;
}

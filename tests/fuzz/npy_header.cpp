// The input is a whole .npy file. An accepted header describes exactly the bytes behind it.
#include "io/npy.h"
#include "tests/fuzz/fuzz_target.h"

#include <algorithm>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace espalier;
    const std::span<const std::uint8_t> whole(data, size);
    only_input_errors([&] {
        const auto prefix = std::as_bytes(whole.first(std::min<std::size_t>(size, 65536 + 12)));
        const NpyHeader header = parse_npy_header(prefix, size, "fuzz");
        demand(header.data_offset <= size, "data inside the file");
        std::uint64_t bytes = header.item_bytes;
        for (const std::uint64_t dimension : header.shape) bytes *= dimension;
        demand(bytes == size - header.data_offset, "the shape's bytes");
    });
    return 0;
}

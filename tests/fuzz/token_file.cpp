// The input is a token file as bytes: .npy, or anything that is no HDF5. What is accepted is a full table of ids inside
// the vocabulary.
//
// Bytes that begin as an HDF5 file are left to token_dataset.cpp, which makes well-formed files of any content: libhdf5
// 1.10.8 itself crashes within seconds when the structure of a file is mutated, and would hide what is ours.
// ESPALIER_FUZZ_HDF5=1 lets them through.
#include "io/token_file.h"

#include "tests/fuzz/fuzz_target.h"

#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace espalier;
    static const ScratchFolder folder;
    static const bool with_hdf5 = std::getenv("ESPALIER_FUZZ_HDF5") != nullptr;
    constexpr std::size_t vocabulary = 1000;
    if (!with_hdf5 && size >= 8 && std::memcmp(data, "\x89HDF\r\n\x1a\n", 8) == 0) return 0;
    folder.write("tokens", as_text(data, size));
    only_input_errors([&] {
        const TokenTable table = read_token_file(folder.path() / "tokens", vocabulary, TokenPurpose::calibration);
        demand(table.rows > 0 && table.columns > 0, "at least one token");
        demand(table.ids.size() == table.rows * table.columns, "a full table");
        for (const std::int32_t id : table.ids) {
            demand(id >= 0 && static_cast<std::size_t>(id) < vocabulary, "ids inside the vocabulary");
        }
    });
    return 0;
}

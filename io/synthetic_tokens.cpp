#include "io/synthetic_tokens.h"

#include "io/checksum.h"
#include "src/base/error.h"
#include "src/base/philox.h"

#include <cstdio>

namespace espalier {

TokenTable make_synthetic_tokens(const std::string& name, std::size_t vocabulary) {
    constexpr std::size_t most = std::size_t{1} << 30;
    TokenTable table;
    int used = 0;
    const int fields = std::sscanf(name.c_str(), "synthetic:%9zux%9zu%n", &table.rows, &table.columns, &used);
    if (fields != 2 || static_cast<std::size_t>(used) != name.size() || table.rows == 0 || table.columns == 0 ||
        table.rows > most / table.columns) {
        throw InputError("'" + name + "' is not synthetic:SAMPLESxTOKENS, such as synthetic:128x2048, of at most " +
                         std::to_string(most) + " tokens");
    }
    table.ids.reserve(table.rows * table.columns);
    for (std::size_t i = 0; i < table.rows * table.columns; ++i) {
        const auto words = philox4x32({static_cast<std::uint32_t>(i), 0, 0, 0}, {0x746F6B65U, 0x6E730000U});
        const auto scaled = static_cast<std::uint64_t>(words[0]) * vocabulary;
        table.ids.push_back(static_cast<std::int32_t>(scaled >> 32));
    }
    table.sha256 = sha256(name + " of " + std::to_string(vocabulary));
    return table;
}

}  // namespace espalier

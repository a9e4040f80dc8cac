#pragma once
/// Random token ids by name, "synthetic:128x2048" (samples x sequence length): for measuring speed and memory.

#include "io/token_file.h"

#include <cstddef>
#include <string>

namespace espalier {

/// Whether an argument in the place of a token file asks for them.
inline bool names_synthetic_tokens(const std::string& name) {
    return name.starts_with("synthetic:");
}

/// Uniform over the vocabulary; id i is a function of i alone. Throws InputError when `name` is not
/// "synthetic:SAMPLESxTOKENS".
TokenTable make_synthetic_tokens(const std::string& name, std::size_t vocabulary);

}  // namespace espalier

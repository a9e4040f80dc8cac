#pragma once
/// A model family: how config.json becomes block specifications, and the table of a block's tensors. A new family is
/// one file in this folder and its name in family.cpp.

#include "src/model/block_layout.h"
#include "src/model/config_fields.h"
#include "src/model/model_config.h"

#include <span>
#include <string>
#include <string_view>

namespace espalier {

struct Family {
    std::string_view model_type;
    /// Fills in what the fields that all families share leave open: the blocks' specifications, biases, windows.
    void (*read)(const ConfigFields& fields, ModelConfig& config);
    BlockLayout (*layout)(const ModelConfig& config);
    /// Fields that `read` reads, so that any value of them is its business (neutral_fields.h).
    std::span<const std::string_view> fields_read = {};
    /// What a missing tie_word_embeddings means.
    bool tied_by_default = false;
    /// Object of config.json that holds the decoder's fields; null: the file itself.
    const char* text_config = nullptr;
    /// Beginnings of names of tensors that belong to the checkpoint but not to the decoder: export copies them.
    std::span<const std::string_view> other_tensors = {};
};

/// Null when there is none.
const Family* find_family(std::string_view model_type);
/// Of a configuration that has been read.
const Family& family_of(std::string_view model_type);
/// For messages: "llama, mistral, …".
std::string family_names();

}  // namespace espalier
